// gates = i, f, g, o of x + z; c = f c + i g; h = o tanh(c). After recurrent.wgsl.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read_write> gates: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;
@group(0) @binding(4) var<storage, read_write> h: array<f32>;

fn cell_step(e: Element) {
    if (!e.goes_on) {
        c[e.after] = c[e.before];
        h[e.after] = h[e.before];
        return;
    }
    var sums: vec4<f32>;
    for (var gate = 0u; gate < 4u; gate++) {
        sums[gate] = x[k.given_start + gate_at(e, gate, 4u)] + z[row_at(e, gate, 4u)];
    }
    let s = logistic(sums);
    let g = tanh1(sums.z);
    let cell = s.y * c[e.before] + s.x * g;
    gates[gate_at(e, 0u, 4u)] = s.x;
    gates[gate_at(e, 1u, 4u)] = s.y;
    gates[gate_at(e, 2u, 4u)] = g;
    gates[gate_at(e, 3u, 4u)] = s.w;
    c[e.after] = cell;
    h[e.after] = s.w * tanh1(cell);
}
