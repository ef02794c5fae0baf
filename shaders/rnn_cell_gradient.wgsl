// The gradient of x from that of h, which is gradient + dh + keep. `keep` becomes the part of it that
// goes directly to the previous state. After recurrent.wgsl.

@group(0) @binding(0) var<storage, read> h: array<f32>;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> dh: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@group(0) @binding(4) var<storage, read_write> keep: array<f32>;

fn cell_step(e: Element) {
    let i = row_at(e, 0u, 1u);
    let total = gradient[k.given_start + gate_at(e, 0u, 1u)] + dh[i] + keep[i];
    let after = h[e.after];
    let slope = select(1.0 - after * after, select(0.0, 1.0, after > 0.0), IS_RELU);
    dx[gate_at(e, 0u, 1u)] = select(0.0, total * slope, e.goes_on);
    keep[i] = select(total, 0.0, e.goes_on);
}
