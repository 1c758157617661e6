// Pose data of an instance, STRIDE vec4 each: per group three matrix rows and a quaternion xyzw, then the morph weights,
// then the rows of `pose/materials.material_states` (`phong` the first three, `mmd` all ten) per material that the pose
// changes. INSTANCE(i) is the i-th of this instance. STORAGE: it is too much for a uniform block.
#if TILES
layout(std430, binding = 0) readonly buffer Instances { vec4 instances[]; };
#if FRAGMENT
#define INSTANCE(i) instances[v_instance * STRIDE + (i)]
#else
#define INSTANCE(i) instances[gl_InstanceID * STRIDE + (i)]
#endif
#elif STORAGE
layout(std430, binding = 0) readonly buffer Instances { vec4 instances[]; };
#define INSTANCE(i) instances[i]
#else
layout(std140, binding = 0) uniform Instances { vec4 instances[STRIDE]; };
#define INSTANCE(i) instances[i]
#endif
