// Sums over parts of a channel, and over two parts together.

fn combined(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return a + b;
}
