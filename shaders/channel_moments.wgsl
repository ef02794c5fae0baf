// (mean, sum of squares around it, count) of a part of a channel, and of two parts combined.
// Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances.

fn combined(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let number = a.z + b.z;
    let share = b.z / max(number, 1.0);
    let apart = b.x - a.x;
    return vec4<f32>(a.x + apart * share, a.y + b.y + apart * apart * a.z * share, number, 0.0);
}
