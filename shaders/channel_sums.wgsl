// Sums over a part of a channel, and over two parts combined.

fn combined(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return a + b;
}
