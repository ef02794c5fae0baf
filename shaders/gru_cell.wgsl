// gates = r, u, n, q with q the last third of z; h = (1 - u) n + u h. After recurrent.wgsl.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read_write> gates: array<f32>;
@group(0) @binding(3) var<storage, read_write> h: array<f32>;

fn cell_step(e: Element) {
    if (!e.goes_on) {
        h[e.after] = h[e.before];
        return;
    }
    let reset_sum = x[k.given_start + gate_at(e, 0u, 3u)] + z[row_at(e, 0u, 3u)];
    let update_sum = x[k.given_start + gate_at(e, 1u, 3u)] + z[row_at(e, 1u, 3u)];
    let s = logistic(vec4<f32>(reset_sum, update_sum, 0.0, 0.0));
    let q = z[row_at(e, 2u, 3u)];
    let n = tanh1(x[k.given_start + gate_at(e, 2u, 3u)] + s.x * q);
    gates[gate_at(e, 0u, 4u)] = s.x;
    gates[gate_at(e, 1u, 4u)] = s.y;
    gates[gate_at(e, 2u, 4u)] = n;
    gates[gate_at(e, 3u, 4u)] = q;
    h[e.after] = n + s.y * (h[e.before] - n);
}
