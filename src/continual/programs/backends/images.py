"""Convolutions of images in compiled programs: the kernels' sources, and the functions in C that stand for their operations."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from ...layers.native import convolution, depthwise
from .native_code import Shims, calls, embedded, openmp

_SHIM = """
AOTITorchError aoti_torch_cpu_image_{name}(AtenTensorHandle* ring, AtenTensorHandle* index, AtenTensorHandle x, AtenTensorHandle weight,
    AtenTensorHandle* bias, {numbers}, int64_t dilation, {after}AtenTensorHandle* ret) {{
  using namespace continual_{name};
  int64_t *of, *shape;
  void *newest, *weights, *kept = nullptr, *place = nullptr, *bias_at = nullptr, *to;
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(x, &shape));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(weight, &of));
  const int64_t batch = shape[0], height = shape[1], width = shape[2], channels = shape[3];
  {geometry}
  const int64_t sizes[] = {{batch, out_h, out_w, features}};
  const int64_t strides[] = {{out_h * out_w * features, out_w * features, features, 1}};
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      4, sizes, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, ret));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(x, &newest));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(weight, &weights));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*ret, &to));
  if (ring) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*ring, &kept));
  if (index) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*index, &place));
  if (bias) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*bias, &bias_at));
  const int64_t size = height * width * channels, depth = dilation * (taps - 1);
  std::vector<{frame}> frames;  // of each row, in its own slots of the ring
  frames.reserve(batch * taps);
  for (int64_t row = 0; row < batch; ++row) {{
    for (int64_t back = depth; back > 0; back -= dilation) {{
      const int64_t slot = ((((const int64_t *)place)[row] - back) % depth + depth) % depth;
      frames.push_back({{(const float *)kept + (row * depth + slot) * size}});
    }}
    frames.push_back({{(const float *)newest + row * size}});
  }}
  const bool busy = batch * out_h * out_w * of[0] * of[1] * of[2] >= {alone};
  const float *numbers = (const float *)weights, *added = (const float *)bias_at;
  {call}
  return AOTI_TORCH_SUCCESS;
}}"""

_DEPTHWISE = {
    "numbers": "int64_t kernel, int64_t stride, int64_t pad_h, int64_t pad_w",
    "after": "int32_t relu, ",
    "frame": "Frame",
    "geometry": """const int64_t taps = of[1] / (kernel * kernel), features = channels;
  const int64_t out_h = (height + 2 * pad_h - kernel) / stride + 1, out_w = (width + 2 * pad_w - kernel) / stride + 1;
  const Geometry geometry{channels, taps, kernel, stride, pad_h, pad_w, 1, taps};  // each row is an output of its own""",
    "run": """const Call call{&geometry, frames.data(), numbers, added, (float *)to, batch, height, width, out_h, out_w, relu != 0};
  run(call, 1, """,
}
_CONVOLUTION = {
    "numbers": "int64_t features, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w, "
    "int64_t dilation_h, int64_t dilation_w",
    "after": "",
    "frame": "const float *",
    "geometry": """const int64_t taps = of[1] / (kernel_h * kernel_w * channels);
  const int64_t out_h = (height + 2 * pad_h - dilation_h * (kernel_h - 1) - 1) / stride_h + 1;
  const int64_t out_w = (width + 2 * pad_w - dilation_w * (kernel_w - 1) - 1) / stride_w + 1;
  const Geometry geometry{kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w};""",
    "run": """const Call call{&geometry, frames.data(), numbers, added, (float *)to, taps, height, width, channels, out_h, out_w, features,
                  of[2] / LANES};
  run(call, batch, """,
}


def code(program: ExportedProgram, threads: int) -> Shims:
    """The functions in C that stand for operations of a program, behind the sources that they call; empty where there are none."""
    found: Shims = {}
    for name, module, parts in (("depthwise", depthwise, _DEPTHWISE), ("convolution", convolution, _CONVOLUTION)):
        kernel = module.library() if calls(program, f"image_{name}") else None
        if kernel is None:
            continue
        parallel, several = openmp(kernel.parallel, threads)
        parts = {**parts, "call": f"{parts['run']}{parallel}, busy ? {several} : 1);", "alone": module.ALONE, "name": name}
        check = f'static_assert(continual_{name}::LANES == {kernel.lanes}, "weights are laid out for vectors of {kernel.lanes}");'
        source = embedded(module.SOURCE, check)
        found[getattr(torch.ops.continual, f"image_{name}").default] = [source, _SHIM.format(**parts)]
    return found
