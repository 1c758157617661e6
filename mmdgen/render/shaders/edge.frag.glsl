// Outlines: the back faces of a hull pushed out along the normals, in one flat colour. Premultiplied, linear.

uniform vec4 u_edge_color;

out vec4 f_color;

void main() {
    f_color = u_edge_color;
}
