// The material's own colours: DIFFUSE (with alpha) and AMBIENT. DYNAMIC: they come with the pose.
#if DYNAMIC
uniform int u_material_offset;
#define DIFFUSE INSTANCE(u_material_offset)
#define AMBIENT INSTANCE(u_material_offset + 1).rgb
#else
uniform vec4 u_diffuse;
uniform vec3 u_ambient;
#define DIFFUSE u_diffuse
#define AMBIENT u_ambient
#endif
