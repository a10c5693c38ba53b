// Real spherical harmonics of degree 0 to 3 in the order and signs of 3D Gaussian Splatting, with derivatives.
#pragma once

// basis[k] and, where wanted, gradient[k] = d basis[k] / d (x, y, z), for unit directions.
template <bool DERIVATIVES, class Vector>
inline void harmonics(int degree, const Vector *d, Vector *basis, Vector (*gradient)[3]) {
    const Vector x = d[0], y = d[1], z = d[2], zero = {};
    auto set = [&](int k, float c, Vector value, Vector gx, Vector gy, Vector gz) {
        basis[k] = c * value;
        if (DERIVATIVES) gradient[k][0] = c * gx, gradient[k][1] = c * gy, gradient[k][2] = c * gz;
    };
    const Vector one = zero + 1;
    set(0, 0.28209479177387814f, one, zero, zero, zero);
    if (degree < 1) return;
    set(1, -0.4886025119029199f, y, zero, one, zero);
    set(2, 0.4886025119029199f, z, zero, zero, one);
    set(3, -0.4886025119029199f, x, one, zero, zero);
    if (degree < 2) return;
    const Vector xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
    set(4, 1.0925484305920792f, xy, y, x, zero);
    set(5, -1.0925484305920792f, yz, zero, z, y);
    set(6, 0.31539156525252005f, 2 * zz - xx - yy, -2 * x, -2 * y, 4 * z);
    set(7, -1.0925484305920792f, xz, z, zero, x);
    set(8, 0.5462742152960396f, xx - yy, 2 * x, -2 * y, zero);
    if (degree < 3) return;
    set(9, -0.5900435899266435f, y * (3 * xx - yy), 6 * xy, 3 * xx - 3 * yy, zero);
    set(10, 2.890611442640554f, xy * z, yz, xz, xy);
    set(11, -0.4570457994644658f, y * (4 * zz - xx - yy), -2 * xy, 4 * zz - xx - 3 * yy, 8 * yz);
    set(12, 0.3731763325901154f, z * (2 * zz - 3 * xx - 3 * yy), -6 * xz, -6 * yz, 6 * zz - 3 * xx - 3 * yy);
    set(13, -0.4570457994644658f, x * (4 * zz - xx - yy), 4 * zz - 3 * xx - yy, -2 * xy, 8 * xz);
    set(14, 1.445305721320277f, z * (xx - yy), 2 * xz, -2 * yz, xx - yy);
    set(15, -0.5900435899266435f, x * (xx - 3 * yy), 3 * xx - 3 * yy, -6 * xy, zero);
}
