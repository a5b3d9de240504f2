#if defined(__x86_64__)
#include "simd_avx2.h"

#include "blend_body.h"
#else
typedef int edge_not_here; /* ISO C wants a declaration in every file */
#endif
