"""One node a case, in ONNX's text format, and the TensorRT releases whose parser refuses it.

Releases are those of onnx-tensorrt's operators.md (7.1, 8.2, 8.5, 10.1) and of the assertions
in its importers; "rtx" is what the parser of tensorrt-rtx 1.7.1.116 answered.
"""

ALL = ("7.1", "8.2", "8.5", "10", "rtx")
OPSET = 11
X = "float[1,2,4,4] x"
CASES = {
    "a 1-D Conv": (
        "[n] y = Conv (x, w)",
        "(float[1,1,4] x) => (float[1,1,3] y) <float[1,1,2] w = {1.,1.}>",
        ("7.1", "8.2"),
    ),
    "a 2-D Conv": (
        "[n] y = Conv (x, w)",
        "(float[1,1,2,2] x) => (float[1,1,1,1] y) <float[1,1,2,2] w = {1.,1.,1.,1.}>",
        (),
    ),
    "a Conv of computed weights": (
        "[n] y = Conv (x, w)",
        "(float[1,1,2,2] x, float[1,1,2,2] w) => (float[1,1,1,1] y)",
        ("7.1", "8.2"),
    ),
    "a Conv of a computed bias": (
        "[n] y = Conv (x, w, b)",
        "(float[1,1,2,2] x, float[1] b) => (float[1,1,1,1] y) "
        "<float[1,1,2,2] w = {1.,1.,1.,1.}>",
        ("7.1", "8.2", "8.5"),
    ),
    "a 1-D AveragePool": (
        "[n] y = AveragePool <kernel_shape = [2]> (x)",
        "(float[1,1,4] x) => (float[1,1,3] y)",
        ("7.1", "8.2", "8.5", "10"),
    ),
    "a dilated MaxPool": (
        "[n] y = MaxPool <kernel_shape = [2,2], dilations = [2,2]> (x)",
        f"({X}) => (float[1,2,2,2] y)",
        ALL,
    ),
    "a MaxPool with Indices": (
        "[n] y, i = MaxPool <kernel_shape = [2,2]> (x)",
        f"({X}) => (float[1,2,3,3] y, int64[1,2,3,3] i)",
        ALL,
    ),
    "a Clip of a computed maximum": (
        "[n] y = Clip (x, , top)",
        f"({X}, float top) => (float[1,2,4,4] y)",
        ("7.1",),
    ),
    "a Clip of constants": (
        "[n] y = Clip (x, low, top)",
        f"({X}) => (float[1,2,4,4] y) <float low = {{0.}}, float top = {{6.}}>",
        (),
    ),
    "a Pad of zeros on the last axes": (
        "[n] y = Pad (x, p)",
        f"({X}) => (float[1,2,6,6] y) <int64[8] p = {{0,0,1,1,0,0,1,1}}>",
        (),
    ),
    "a Pad of channels": (
        "[n] y = Pad (x, p)",
        f"({X}) => (float[1,3,4,4] y) <int64[8] p = {{0,0,0,0,0,1,0,0}}>",
        ("7.1",),
    ),
    "a Pad of ones": (
        "[n] y = Pad (x, p, v)",
        f"({X}) => (float[1,2,6,6] y) "
        "<int64[8] p = {0,0,1,1,0,0,1,1}, float v = {1.}>",
        ("7.1",),
    ),
    "a reflecting Pad": (
        '[n] y = Pad <mode = "reflect"> (x, p)',
        f"({X}) => (float[1,2,6,6] y) <int64[8] p = {{0,0,1,1,0,0,1,1}}>",
        ("7.1",),
    ),
    "a computed Pad": (
        "[n] y = Pad (x, p)",
        f"({X}, int64[8] p) => (float[1,2,N,M] y)",
        ("7.1",),
    ),
    "a Resize by half pixels, nearest": (
        "[n] y = Resize (x, , s)",
        f"({X}) => (float[1,2,8,8] y) <float[4] s = {{1.,1.,2.,2.}}>",
        ("7.1",),
    ),
    "an asymmetric Resize by floor": (
        '[n] y = Resize <coordinate_transformation_mode = "asymmetric", '
        'nearest_mode = "floor"> (x, , s)',
        f"({X}) => (float[1,2,8,8] y) <float[4] s = {{1.,1.,2.,2.}}>",
        (),
    ),
    "a cubic Resize": (
        '[n] y = Resize <mode = "cubic", coordinate_transformation_mode = "asymmetric"> '
        "(x, , s)",
        f"({X}) => (float[1,2,8,8] y) <float[4] s = {{1.,1.,2.,2.}}>",
        ("7.1", "8.2", "8.5", "10"),
    ),
    "a Resize by computed scales": (
        '[n] y = Resize <coordinate_transformation_mode = "asymmetric", '
        'nearest_mode = "floor"> (x, , s)',
        f"({X}, float[4] s) => (float[1,2,8,8] y)",
        ALL,
    ),
    "a Resize to computed sizes": (
        '[n] y = Resize <coordinate_transformation_mode = "asymmetric", '
        'nearest_mode = "floor"> (x, , , s)',
        f"({X}, int64[4] s) => (float[1,2,N,M] y)",
        (),
    ),
    "an InstanceNormalization of dynamic shape": (
        "[n] y = InstanceNormalization (x, w, w)",
        "(float[1,1,N,4] x) => (float[1,1,N,4] y) <float[1] w = {1.}>",
        ("7.1",),
    ),
    "an InstanceNormalization of computed scale": (
        "[n] y = InstanceNormalization (x, w, w)",
        "(float[1,1,4,4] x, float[1] w) => (float[1,1,4,4] y)",
        ("7.1", "8.2", "8.5"),
    ),
    "a TopK of computed K": (
        "[n] y, i = TopK (x, k)",
        "(float[4] x, int64[1] k) => (float[N] y, int64[N] i)",
        ("7.1", "8.2", "8.5"),
    ),
    "a TopK of 4000": (
        "[n] y, i = TopK (x, k)",
        "(float[9999] x) => (float[4000] y, int64[4000] i) <int64[1] k = {4000}>",
        ("10", "rtx"),
    ),
    "an unsorted TopK": (
        "[n] y, i = TopK <sorted = 0> (x, k)",
        "(float[9] x) => (float[4] y, int64[4] i) <int64[1] k = {4}>",
        ("10",),
    ),
    "a Slice of computed axes": (
        "[n] y = Slice (x, s, e, a)",
        "(float[4] x, int64[1] s, int64[1] e, int64[1] a) => (float[N] y)",
        ALL,
    ),
    "a Slice of computed ends": (
        "[n] y = Slice (x, s, e, a)",
        "(float[4] x, int64[1] s, int64[1] e) => (float[N] y) <int64[1] a = {0}>",
        (),
    ),
    "a MatMul of integers": (
        "[n] y = MatMul (x, x)",
        "(int32[2,2] x) => (int32[2,2] y)",
        ALL,
    ),
    "a Pow of integers": (
        "[n] y = Pow (x, x)",
        "(int32[2] x) => (int32[2] y)",
        ("7.1", "8.2", "8.5"),
    ),
    "an Equal of booleans": (
        "[n] y = Equal (x, x)",
        "(bool[2] x) => (bool[2] y)",
        ("7.1", "8.2"),
    ),
    "a Gather of booleans": (
        "[n] y = Gather (x, i)",
        "(bool[2] x, int64[1] i) => (bool[1] y)",
        ("7.1", "8.2"),
    ),
    "a Where of booleans": (
        "[n] y = Where (x, x, x)",
        "(bool[2] x) => (bool[2] y)",
        ("7.1",),
    ),
    "an ArgMax of integers": (
        "[n] y = ArgMax <axis = 1> (x)",
        "(int32[2,2] x) => (int64[2,1] y)",
        ("7.1", "8.2"),
    ),
    "an ArgMax of one axis": (
        "[n] y = ArgMax <axis = 0> (x)",
        "(float[2] x) => (int64[1] y)",
        ALL,
    ),
    "a Neg of integers": ("[n] y = Neg (x)", "(int32[2] x) => (int32[2] y)", ("7.1",)),
    "a Range of computed floats": (
        "[n] y = Range (a, b, c)",
        "(float a, float b, float c) => (float[N] y)",
        ("7.1", "8.2", "rtx"),
    ),
    "a Range of computed integers": (
        "[n] y = Range (a, b, c)",
        "(int64 a, int64 b, int64 c) => (int64[N] y)",
        (),
    ),
    "an LSTM of coupled gates": (
        "[n] y = LSTM <hidden_size = 1, input_forget = 1> (x, w, w)",
        "(float[1,1,1] x, float[1,4,1] w) => (float[1,1,1,1] y)",
        ALL,
    ),
    "a DepthToSpace of three axes": (
        "[n] y = DepthToSpace <blocksize = 1> (x)",
        "(float[1,4,4] x) => (float[1,4,4] y)",
        ALL,
    ),
    "a result of nine axes": (
        "[n] y = Relu (x)",
        "(float[1,1,1,1,1,1,1,1,1] x) => (float[1,1,1,1,1,1,1,1,1] y)",
        ALL,
    ),
}  # fmt: skip
