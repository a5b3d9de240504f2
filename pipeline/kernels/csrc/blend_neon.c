#if defined(__aarch64__)
#include "simd_neon.h"

#include "blend_body.h"
#else
typedef int edge_not_here; /* ISO C wants a declaration in every file */
#endif
