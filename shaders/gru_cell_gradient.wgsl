// The gradients of x and z from that of h, which is gradient + dh + keep. `keep` becomes the part of
// it that goes directly to the previous state. After recurrent.wgsl.

@group(0) @binding(0) var<storage, read> gates: array<f32>;
@group(0) @binding(1) var<storage, read> h: array<f32>;
@group(0) @binding(2) var<storage, read> gradient: array<f32>;
@group(0) @binding(3) var<storage, read> dh: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(0) @binding(5) var<storage, read_write> dz: array<f32>;
@group(0) @binding(6) var<storage, read_write> keep: array<f32>;

fn cell_step(e: Element) {
    let i = row_at(e, 0u, 1u);
    let total = gradient[k.given_start + gate_at(e, 0u, 1u)] + dh[i] + keep[i];
    let r = gates[gate_at(e, 0u, 4u)];
    let u = gates[gate_at(e, 1u, 4u)];
    let n = gates[gate_at(e, 2u, 4u)];
    let q = gates[gate_at(e, 3u, 4u)];
    let dn = total * (1.0 - u) * (1.0 - n * n);
    let of_reset = dn * q * r * (1.0 - r);
    let of_update = total * (h[e.before] - n) * u * (1.0 - u);
    dx[gate_at(e, 0u, 3u)] = select(0.0, of_reset, e.goes_on);
    dx[gate_at(e, 1u, 3u)] = select(0.0, of_update, e.goes_on);
    dx[gate_at(e, 2u, 3u)] = select(0.0, dn, e.goes_on);
    dz[gate_at(e, 0u, 3u)] = select(0.0, of_reset, e.goes_on);
    dz[gate_at(e, 1u, 3u)] = select(0.0, of_update, e.goes_on);
    dz[gate_at(e, 2u, 3u)] = select(0.0, dn * r, e.goes_on);
    keep[i] = select(total, total * u, e.goes_on);
}
