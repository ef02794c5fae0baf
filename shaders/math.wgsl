// The mathematics of elementwise kernels, four elements at a time.
//
// A kernel's text includes the functions that it uses, directly or indirectly. Built-in functions are
// used where every driver is known to be accurate to a few units in the last place. The others are
// implemented here: the built-in tanh loses small arguments and overflows for large ones, log has no
// relative accuracy near 1, exp loses digits as its argument grows, and comparisons may treat NaN as
// a number. So NaN is detected by its bits, and select() replaces min() and max(), which would hide
// it.

// A NaN or an infinity: a compiler may reject one that it can compute itself.
fn of_bits(bits: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(bits));
}

fn is_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

fn less(a: vec4<f32>, b: vec4<f32>) -> vec4<bool> {
    return (a < b) & !(is_nan(a) | is_nan(b));
}

fn less_equal(a: vec4<f32>, b: vec4<f32>) -> vec4<bool> {
    return (a <= b) & !(is_nan(a) | is_nan(b));
}

fn equal(a: vec4<f32>, b: vec4<f32>) -> vec4<bool> {
    return (a == b) & !(is_nan(a) | is_nan(b));
}

fn maximum(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(select(b, a, a > b), b, is_nan(b)), a, is_nan(a));
}

fn minimum(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(select(b, a, a < b), b, is_nan(b)), a, is_nan(a));
}

fn relu(x: vec4<f32>) -> vec4<f32> {
    return select(select(vec4<f32>(0.0), x, x > vec4<f32>(0.0)), x, is_nan(x));
}

fn sign_of(x: vec4<f32>) -> vec4<f32> {
    let positive = select(x, vec4<f32>(1.0), x > vec4<f32>(0.0));
    return select(select(positive, vec4<f32>(-1.0), x < vec4<f32>(0.0)), x, is_nan(x));
}

// 2^n for -252 <= n <= 254, in two factors, so that neither overflows.
fn scale(x: vec4<f32>, n: vec4<i32>) -> vec4<f32> {
    let half = n >> vec4<u32>(1u);
    let first = bitcast<vec4<f32>>((half + vec4<i32>(127)) << vec4<u32>(23u));
    let second = bitcast<vec4<f32>>((n - half + vec4<i32>(127)) << vec4<u32>(23u));
    return x * first * second;
}

// exp(r) for |r| <= log(2) / 2 by a polynomial, 2 ULP.
fn exponential_series(r: vec4<f32>) -> vec4<f32> {
    var p = vec4<f32>(0.0013933732407167554);
    p = p * r + 0.008363235741853714;
    p = p * r + 0.041666463017463684;
    p = p * r + 0.16666576266288757;
    p = p * r + 0.5;
    return p * r * r + r + 1.0;
}

// x - n log(2).
fn less_logarithms_of_2(x: vec4<f32>, n: vec4<f32>) -> vec4<f32> {
    return (x - n * 0.693359375) + n * 2.12194440e-4;
}

// x = n log(2) + r with |r| <= log(2) / 2.
fn exponential(x: vec4<f32>) -> vec4<f32> {
    let bounded = clamp(x, vec4<f32>(-104.0), vec4<f32>(89.0));
    let n = round(bounded * 1.44269504);
    let p = exponential_series(less_logarithms_of_2(bounded, n));
    return select(scale(p, vec4<i32>(n)), x, is_nan(x));
}

// exp(x) for x <= 0, and for x < 88: 0 where it would be subnormal, with half the operations of
// exponential().
fn exponential_of_negative(x: vec4<f32>) -> vec4<f32> {
    let bounded = max(x, vec4<f32>(-88.0));
    let n = round(bounded * 1.44269504);  // at least -127, where the power of 2 is 0
    let power = bitcast<vec4<f32>>((vec4<i32>(n) + vec4<i32>(127)) << vec4<u32>(23u));
    let p = exponential_series(less_logarithms_of_2(bounded, n));
    return select(p * power, x, is_nan(x));
}

// The built-in function has an error of 3 + 2 |x| units in the last place.
fn power_of_two(x: vec4<f32>) -> vec4<f32> {
    return select(exp2(x), x, is_nan(x));
}

fn exponential_minus_1(x: vec4<f32>) -> vec4<f32> {
    var p = vec4<f32>(2.494536602171138e-05);
    p = p * x + 0.00019967085972893983;
    p = p * x + 0.0013888655230402946;
    p = p * x + 0.008333169855177402;
    p = p * x + 0.0416666679084301;
    p = p * x + 0.1666666716337204;
    p = p * x + 0.5;
    let is_small = abs(x) < vec4<f32>(0.5);
    return select(exponential(x) - 1.0, p * x * x + x, is_small);
}

// 2 atanh(x / (2 + x)) for |x| < 0.4.
fn logarithm_series(x: vec4<f32>) -> vec4<f32> {
    let s = x / (x + 2.0);
    let q = s * s;
    var p = vec4<f32>(0.09090909);
    p = p * q + 0.11111111;
    p = p * q + 0.14285715;
    p = p * q + 0.2;
    p = p * q + 0.33333334;
    return 2.0 * s + 2.0 * s * q * p;
}

// A subnormal number is its bits, as an integer, times 2^-149: drivers may treat it as 0 or as
// another number.
fn is_subnormal(x: vec4<f32>) -> vec4<bool> {
    let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
    return (bits < vec4<u32>(0x00800000u)) & (bits > vec4<u32>(0u));
}

// x, or 2^149 x if it is subnormal.
fn enlarged(x: vec4<f32>) -> vec4<f32> {
    let size = vec4<f32>(bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu));
    let signed = select(size, -size, bitcast<vec4<i32>>(x) < vec4<i32>(0));
    return select(x, signed, is_subnormal(x));
}

fn logarithm(x: vec4<f32>) -> vec4<f32> {
    let is_tiny = is_subnormal(x);
    let whole = enlarged(x);
    let near = x - 1.0;
    let far = select(log(whole), x, is_nan(x)) - select(vec4<f32>(0.0), vec4<f32>(103.27893), is_tiny);
    return select(far, logarithm_series(near), abs(near) < vec4<f32>(0.4));
}

fn square_root(x: vec4<f32>) -> vec4<f32> {
    let root = sqrt(enlarged(x)); // of 2^149 x: 2^74.5 times as large
    return select(root, root * 3.743392066509216e-23, is_subnormal(x));
}

fn logarithm_1_plus(x: vec4<f32>) -> vec4<f32> {
    return select(logarithm(1.0 + x), logarithm_series(x), abs(x) < vec4<f32>(0.4));
}

fn hyperbolic_tangent(x: vec4<f32>) -> vec4<f32> {
    let a = abs(x);
    let e = exponential_minus_1(-2.0 * select(a, vec4<f32>(20.0), a > vec4<f32>(20.0)));
    let t = -e / (2.0 + e);
    return select(select(t, -t, x < vec4<f32>(0.0)), x, is_nan(x));
}

fn logistic(x: vec4<f32>) -> vec4<f32> {
    let e = exponential_of_negative(-abs(x));
    return select(vec4<f32>(1.0), e, x < vec4<f32>(0.0)) / (1.0 + e);
}

fn softplus(x: vec4<f32>) -> vec4<f32> {
    return relu(x) + logarithm_1_plus(exponential_of_negative(-abs(x)));
}

// Below 1: x times a polynomial in x^2. Above: 1 - exp(-x^2) times a polynomial in 1 / (1 + x / 2).
fn error_function(x: vec4<f32>) -> vec4<f32> {
    let a = abs(x);
    let u = select(a, vec4<f32>(4.0), a > vec4<f32>(4.0));
    let s = u * u;
    var p = vec4<f32>(-9.673590284364764e-06);
    p = p * s + 0.00011268253729213029;
    p = p * s - 0.0008484396385028958;
    p = p * s + 0.005221053492277861;
    p = p * s - 0.026865437626838684;
    p = p * s + 0.11283782869577408;
    p = p * s - 0.37612637877464294;
    p = p * s + 1.128379225730896;
    let t = 1.0 / (1.0 + 0.5 * u);
    var q = vec4<f32>(0.012932875193655491);
    q = q * t + 0.0685306116938591;
    q = q * t - 0.38464638590812683;
    q = q * t + 0.47981661558151245;
    q = q * t - 0.053793735802173615;
    q = q * t + 0.32894638180732727;
    q = q * t + 0.2641076445579529;
    q = q * t + 0.2843257784843445;
    q = q * t - 0.00012040269939461723;
    let large = select(1.0 - exponential_of_negative(-s) * q, vec4<f32>(1.0), u >= vec4<f32>(4.0));
    let e = select(large, p * u, u < vec4<f32>(1.0));
    return select(select(e, -e, x < vec4<f32>(0.0)), x, is_nan(x));
}

// The high and the low word of a product, in 16-bit parts.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let middle = (a >> 16u) * (b & 0xffffu) + (((a & 0xffffu) * (b & 0xffffu)) >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return vec2<u32>((a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u), a * b);
}

// The 32 bits of 2 / pi that start `at` bits after the binary point; 0 before it.
fn bits_of_two_by_pi(at: u32) -> u32 {
    var words = array<u32, 7>(
        0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u);
    let shift = at % 32u;
    let after = select(words[at / 32u + 1u] >> (32u - max(shift, 1u)), 0u, shift == 0u);
    return (words[at / 32u] << shift) | after;
}

// x = k pi / 2 + r for any |x| >= 2: (r, k modulo 4). The digits of x are multiplied by the 96 bits
// of 2 / pi that affect the fraction or the two bits before the point. Payne, Hanek: "Radian
// reduction for trigonometric functions", SIGNUM Newsletter 18, 1983.
fn far_quadrant(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x);
    let digits = (bits << 8u) | 0x80000000u;
    // The lowest of the first 32 bits is worth 2^(1 - exponent), times that of the digits 2^-30.
    let at = clamp((bits >> 23u) & 0xffu, 128u, 254u) - 128u;
    let low = wide_product(digits, bits_of_two_by_pi(at + 64u)).x;
    let middle = wide_product(digits, bits_of_two_by_pi(at + 32u));
    let second = middle.y + low;
    let first = digits * bits_of_two_by_pi(at) + middle.x + select(0u, 1u, second < low);
    // first / 2^30 is the number of quadrants, rounded to nearest: from a half on, r is negative.
    let quadrant = (first + 0x20000000u) >> 30u;
    let is_below = (first & 0x20000000u) != 0u;
    let rest = vec2<u32>(first & 0x3fffffffu, second);
    let less = vec2<u32>(0x3fffffffu - rest.x + select(0u, 1u, rest.y == 0u), 0u - rest.y);
    let size = select(rest, less, is_below);
    let r = (f32(size.x) * 9.313225746154785e-10 + f32(size.y) * 2.168404344971009e-19) * 1.5707964;
    let is_negative = bits >= 0x80000000u;
    let k = select(quadrant, 4u - quadrant, is_negative) & 3u;
    return vec2<f32>(select(r, -r, is_below != is_negative), f32(k));
}

// x = k pi / 2 + r: with pi / 2 in three parts, accurate up to |x| = 10,000; beyond, in integers.
fn sine_from(x: vec4<f32>, quadrants: i32) -> vec4<f32> {
    var n = round(x * 0.63661977);
    var r = ((x - n * 1.5703125) - n * 4.837512969970703125e-4) - n * 7.54978995489188e-8;
    let is_far = abs(x) > vec4<f32>(10000.0);
    if (any(is_far)) {
        let far = mat4x2<f32>(
            far_quadrant(x.x), far_quadrant(x.y), far_quadrant(x.z), far_quadrant(x.w));
        r = select(r, vec4<f32>(far[0].x, far[1].x, far[2].x, far[3].x), is_far);
        n = select(n, vec4<f32>(far[0].y, far[1].y, far[2].y, far[3].y), is_far);
    }
    let is_finite = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
    r = select(of_bits(0x7fc00000u), r, is_finite);
    let s = r * r;
    var p = vec4<f32>(2.724994828895433e-06);
    p = p * s - 0.00019840087043121457;
    p = p * s + 0.008333331905305386;
    p = p * s - 0.1666666716337204;
    let sine = p * s * r + r;
    var q = vec4<f32>(-2.138852721600415e-07);
    q = q * s + 2.4736771592870355e-05;
    q = q * s - 0.0013888691319152713;
    q = q * s + 0.0416666641831398;
    let cosine = q * s * s - 0.5 * s + 1.0;
    let k = vec4<i32>(n) + vec4<i32>(quadrants);
    let is_odd = (k & vec4<i32>(1)) == vec4<i32>(1);
    let value = select(sine, cosine, is_odd);
    return select(value, -value, (k & vec4<i32>(2)) == vec4<i32>(2));
}

fn sine(x: vec4<f32>) -> vec4<f32> {
    return sine_from(x, 0);
}

fn cosine(x: vec4<f32>) -> vec4<f32> {
    return sine_from(x, 1);
}

// Integer exponents up to 64 by repeated products; others by exp(b log(a)).
fn power(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let n = round(b);
    let is_whole = n == b;
    let is_odd = is_whole & ((vec4<i32>(n) & vec4<i32>(1)) == vec4<i32>(1));
    // By the bits: abs of a subnormal number may be 0.
    let size = bitcast<vec4<f32>>(bitcast<vec4<u32>>(a) & vec4<u32>(0x7fffffffu));
    var general = exponential(b * logarithm(size));
    general = select(general, vec4<f32>(1.0), size == vec4<f32>(1.0));
    let zero_or_infinite = select(vec4<f32>(0.0), 1.0 / size, b < vec4<f32>(0.0));
    let is_negative = bitcast<vec4<i32>>(a) < vec4<i32>(0);
    let is_zero = (bitcast<vec4<u32>>(a) & vec4<u32>(0x7fffffffu)) == vec4<u32>(0u);
    var value = select(general, zero_or_infinite, is_zero);
    value = select(value, -value, is_odd & is_negative);
    let is_finite = (bitcast<vec4<u32>>(a) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
    let undefined = is_negative & !is_zero & !is_whole & is_finite;
    value = select(value, of_bits(0x7fc00000u), undefined);
    let exact = whole_power(a, select(vec4<i32>(0), vec4<i32>(n), abs(b) <= vec4<f32>(64.0)));
    value = select(value, exact, is_whole & (abs(b) <= vec4<f32>(64.0)));
    value = select(value, a + b, is_nan(a) | is_nan(b));
    return select(value, vec4<f32>(1.0), equal(b, vec4<f32>(0.0)) | equal(a, vec4<f32>(1.0)));
}

fn whole_power(a: vec4<f32>, n: vec4<i32>) -> vec4<f32> {
    var rest = abs(n);
    var square = a;
    var product = vec4<f32>(1.0);
    for (var bit = 0; bit < 7; bit++) {
        product = select(product, product * square, (rest & vec4<i32>(1)) == vec4<i32>(1));
        square = square * square;
        rest = rest >> vec4<u32>(1u);
    }
    return select(product, 1.0 / product, n < vec4<i32>(0));
}

// A negative power is a fraction, so 0, except of 1 and -1.
fn integer_power(a: vec4<i32>, n: vec4<i32>) -> vec4<i32> {
    let is_whole = (n >= vec4<i32>(0)) | (abs(a) == vec4<i32>(1));
    var rest = abs(n);
    var square = a;
    var product = vec4<i32>(1);
    for (var bit = 0; bit < 31; bit++) {
        product = select(product, product * square, (rest & vec4<i32>(1)) == vec4<i32>(1));
        square = square * square;
        rest = rest >> vec4<u32>(1u);
    }
    return select(vec4<i32>(0), product, is_whole);
}

fn floor_of(x: vec4<f32>) -> vec4<f32> {
    return select(floor(x), x, is_nan(x));
}

// The exact remainder of |x| / |y|, by long division of the significands, as the quotient may have
// more digits than a float. For finite x and y other than 0.
fn remainder_of(x: f32, y: f32) -> f32 {
    let a = bitcast<u32>(x) & 0x7fffffffu;
    let b = bitcast<u32>(y) & 0x7fffffffu;
    let from_ = max(a >> 23u, 1u);
    let to_ = max(b >> 23u, 1u);
    if (a < b) {
        return abs(x);
    }
    let divisor = (b & 0x7fffffu) | select(0u, 0x800000u, (b >> 23u) > 0u);
    var rest = ((a & 0x7fffffu) | select(0u, 0x800000u, (a >> 23u) > 0u)) % divisor;
    for (var left = from_ - to_; left > 0u && rest > 0u; ) {
        let step = min(left, 8u);
        rest = (rest << step) % divisor;
        left -= step;
    }
    if (rest == 0u) {
        return 0.0;
    }
    let shift = min(countLeadingZeros(rest) - 8u, to_ - 1u);
    let significand = rest << shift;
    let exponent = select(0u, to_ - shift, significand >= 0x800000u);
    return bitcast<f32>((exponent << 23u) | (significand & 0x7fffffu));
}

fn modulo1(a: f32, b: f32) -> f32 {
    let size = bitcast<u32>(a) & 0x7fffffffu;
    let divisor = bitcast<u32>(b) & 0x7fffffffu;
    if (size >= 0x7f800000u || divisor == 0u || divisor > 0x7f800000u) {
        return bitcast<f32>(0x7fc00000u | (bitcast<u32>(a) & 1u));
    }
    var rest = abs(a);
    if (divisor < 0x7f800000u) {
        rest = remainder_of(a, b);
    }
    let sign = bitcast<u32>(b) & 0x80000000u;
    if (rest == 0.0) {
        return bitcast<f32>(sign);
    }
    let differs = ((bitcast<u32>(a) ^ bitcast<u32>(b)) & 0x80000000u) != 0u;
    return bitcast<f32>(bitcast<u32>(select(rest, abs(b) - rest, differs)) | sign);
}

// The remainder of a / b, with the sign of b.
fn modulo(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        modulo1(a.x, b.x), modulo1(a.y, b.y), modulo1(a.z, b.z), modulo1(a.w, b.w)
    );
}

// Without the remainder, the quotient is an integer up to rounding, which `round` removes.
fn floor_quotient(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let whole = round((a - modulo(a, b)) / b);
    let ratio = select(a / b, of_bits(0x7fc00000u), is_nan(a) | is_nan(b));
    let far = select(vec4<f32>(0.0), vec4<f32>(-1.0), (a < vec4<f32>(0.0)) != (b < vec4<f32>(0.0)));
    let of_infinite = select(far, vec4<f32>(0.0), a == vec4<f32>(0.0));
    let finite = select(whole, of_infinite, is_infinite(b) & !is_infinite(a) & !is_nan(a));
    let known = select(finite, of_bits(0x7fc00000u), is_infinite(a) | is_nan(a) | is_nan(b));
    return select(known, ratio, b == vec4<f32>(0.0));
}

fn is_infinite(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) == vec4<u32>(0x7f800000u);
}

// For a divisor of 0 both are 0, as in NumPy.
fn integer_floor_quotient(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
    let divisor = select(b, vec4<i32>(1), b == vec4<i32>(0));
    let quotient = a / divisor;
    let rest = a - quotient * divisor;
    let is_above = (rest != vec4<i32>(0)) & ((rest < vec4<i32>(0)) != (divisor < vec4<i32>(0)));
    let below = select(quotient, quotient - vec4<i32>(1), is_above);
    return select(below, vec4<i32>(0), b == vec4<i32>(0));
}

fn integer_modulo(a: vec4<i32>, b: vec4<i32>) -> vec4<i32> {
    return select(a - integer_floor_quotient(a, b) * b, vec4<i32>(0), b == vec4<i32>(0));
}

// Without the fraction; beyond the integers the nearest one, and 0 for NaN.
fn integers_of(x: vec4<f32>) -> vec4<i32> {
    let above = select(vec4<i32>(x), vec4<i32>(2147483647), x >= vec4<f32>(2147483648.0));
    let inside = select(above, vec4<i32>(-2147483647 - 1), x <= vec4<f32>(-2147483648.0));
    return select(inside, vec4<i32>(0), is_nan(x));
}

fn integer_of(x: f32) -> i32 {
    return integers_of(vec4<f32>(x)).x;
}

// To float16 and back: devices without 16-bit floats store float16 this way. To nearest, ties to
// even, by the bits: drivers fold a conversion and its inverse away.
fn rounded(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    var kept = (size + 0xfffu + ((size >> 13u) & 1u)) & 0xffffe000u;
    kept = select(kept, 0x7f800000u, kept >= 0x47800000u); // 65536
    kept = select(kept, 0x7fc00000u, size > 0x7f800000u);
    // Below 2^-14 to a multiple of 2^-24; below half of that, where the shift is 25 or more, to 0.
    let shift = 126u - min(max(size >> 23u, 101u), 112u);
    let digits = (size & 0x7fffffu) | 0x800000u;
    let units = (digits + (1u << (shift - 1u)) - 1u + ((digits >> shift) & 1u)) >> shift;
    kept = select(kept, bitcast<u32>(f32(units) * 5.9604644775390625e-8), size < 0x38800000u);
    return bitcast<f32>(kept | (bits & 0x80000000u));
}

fn rounded4(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(rounded(x.x), rounded(x.y), rounded(x.z), rounded(x.w));
}
