// Pose data of an instance, STRIDE vec4 each: per group three matrix rows and a quaternion xyzw, then the morph weights,
// then two vec4 (diffuse, ambient) per material that the pose changes. INSTANCE(i) is the i-th of this instance.
#if TILES
layout(std430, binding = 0) readonly buffer Instances { vec4 instances[]; };
#if FRAGMENT
#define INSTANCE(i) instances[v_instance * STRIDE + (i)]
#else
#define INSTANCE(i) instances[gl_InstanceID * STRIDE + (i)]
#endif
#else
layout(std140, binding = 0) uniform Instances { vec4 instances[STRIDE]; };
#define INSTANCE(i) instances[i]
#endif
