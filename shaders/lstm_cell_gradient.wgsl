// The gradients of the gates from that of h, which is gradient + dh + keep, and from dc, which
// becomes the gradient of the previous cell. `keep` becomes the part of h's gradient that goes
// directly to the previous state. After recurrent.wgsl.

@group(0) @binding(0) var<storage, read> gates: array<f32>;
@group(0) @binding(1) var<storage, read> c: array<f32>;
@group(0) @binding(2) var<storage, read> gradient: array<f32>;
@group(0) @binding(3) var<storage, read> dh: array<f32>;
@group(0) @binding(4) var<storage, read_write> dc: array<f32>;
@group(0) @binding(5) var<storage, read_write> dgates: array<f32>;
@group(0) @binding(6) var<storage, read_write> keep: array<f32>;

fn cell_step(e: Element) {
    let i = row_at(e, 0u, 1u);
    let total = gradient[k.given_start + gate_at(e, 0u, 1u)] + dh[i] + keep[i];
    if (!e.goes_on) {
        for (var gate = 0u; gate < 4u; gate++) {
            dgates[gate_at(e, gate, 4u)] = 0.0;
        }
        keep[i] = total;
        return;
    }
    let input = gates[gate_at(e, 0u, 4u)];
    let forget = gates[gate_at(e, 1u, 4u)];
    let g = gates[gate_at(e, 2u, 4u)];
    let output = gates[gate_at(e, 3u, 4u)];
    let flat = tanh1(c[e.after]);
    let through = dc[i] + total * output * (1.0 - flat * flat);
    dgates[gate_at(e, 0u, 4u)] = through * g * input * (1.0 - input);
    dgates[gate_at(e, 1u, 4u)] = through * c[e.before] * forget * (1.0 - forget);
    dgates[gate_at(e, 2u, 4u)] = through * input * (1.0 - g * g);
    dgates[gate_at(e, 3u, 4u)] = total * flat * output * (1.0 - output);
    dc[i] = through * forget;
    keep[i] = 0.0;
}
