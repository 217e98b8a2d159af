"""Matrix products of OpenBLAS, through NumPy, or of oneDNN, through PyTorch: a child of gemm.rs.

`products.py openblas|onednn THREADS` writes a line that names the library, then answers each line
"role m n k calls" of its input with the seconds of a call, after one that is not counted. Operands
lie in memory as for every peer: X and dZ have a row for each example, W one for each input.
oneDNN's product cannot read a transposed left operand, so PyTorch copies it in each call.
"""

import sys
import time

import numpy


def operands(role, m, n, k):
    rng = numpy.random.default_rng(0)
    a, b = (m, k), (k, n)
    if role == "weight-gradient":
        a = (k, m)
    elif role == "input-gradient":
        b = (n, k)
    a, b = (rng.uniform(-1, 1, shape).astype(numpy.float32) for shape in (a, b))
    return a.T if role == "weight-gradient" else a, b.T if role == "input-gradient" else b


def openblas(_):
    config = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    if "openblas" not in config["name"]:
        sys.exit(f"this NumPy multiplies with {config['name']}, not OpenBLAS")

    def product(a, b):
        c = numpy.empty((a.shape[0], b.shape[1]), numpy.float32)
        return lambda: numpy.matmul(a, b, out=c)

    return f"OpenBLAS {config['version']} (NumPy {numpy.__version__})", product


def onednn(threads):
    import torch

    torch.set_num_threads(threads)

    def product(a, b):
        a, weight = torch.from_numpy(a), torch.from_numpy(b).T
        return lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], "").numpy()

    version = torch.__config__.show().split("MKL-DNN v")[1].split()[0]
    return f"oneDNN {version} (PyTorch {torch.__version__})", product


def main():
    library = {"openblas": openblas, "onednn": onednn}[sys.argv[1]]
    name, product = library(int(sys.argv[2]))
    print(name, flush=True)
    shape, call = None, None
    for line in sys.stdin:
        *new, calls = line.split()
        if new != shape:
            shape = new
            role, (m, n, k) = shape[0], map(int, shape[1:])
            a, b = operands(role, m, n, k)
            call = product(a, b)
            error = numpy.abs(call() - a.astype(float) @ b.astype(float)).max()
            if not error <= k * k * 2.0 ** -24:
                sys.exit(f"{line.strip()}: off by {error}")
        call()
        start = time.perf_counter()
        for _ in range(int(calls)):
            call()
        print((time.perf_counter() - start) / int(calls), flush=True)


if __name__ == "__main__":
    main()
