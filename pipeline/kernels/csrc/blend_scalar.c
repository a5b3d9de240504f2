#include "simd_scalar.h"

#include "blend_body.h"
