from wgpu.backends.wgpu_native import _api as _api
from wgpu.backends.wgpu_native import extras as extras
