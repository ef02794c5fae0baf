"""The UUIDs of this machine's GPUs, from the Vulkan loader: wgpu-native does not expose them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from functools import cache
from typing import Final

_LIBRARY: Final = "vulkan-1.dll" if sys.platform == "win32" else "libvulkan.so.1"
# Structure types, and member sizes and offsets, from Vulkan 1.1 on 64-bit machines.
_INSTANCE_CREATE_INFO: Final = 1
_APPLICATION_INFO: Final = 0
_PROPERTIES_2: Final = 1000059001
_ID_PROPERTIES: Final = 1000071004
_VERSION_1_1: Final = 1 << 22 | 1 << 12
_NAME_AT: Final = 20  # deviceName in VkPhysicalDeviceProperties
_PROPERTIES_SIZE: Final = 824


class _ApplicationInfo(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("next", ctypes.c_void_p),
                ("name", ctypes.c_char_p), ("version", ctypes.c_uint32),
                ("engine", ctypes.c_char_p), ("engine_version", ctypes.c_uint32),
                ("api_version", ctypes.c_uint32)]  # fmt: skip


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("next", ctypes.c_void_p),
                ("flags", ctypes.c_uint32), ("application", ctypes.POINTER(_ApplicationInfo)),
                ("layer_count", ctypes.c_uint32), ("layers", ctypes.c_void_p),
                ("extension_count", ctypes.c_uint32), ("extensions", ctypes.c_void_p)]  # fmt: skip


class _IdProperties(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("next", ctypes.c_void_p),
                ("device_uuid", ctypes.c_uint8 * 16), ("driver_uuid", ctypes.c_uint8 * 16),
                ("luid", ctypes.c_uint8 * 8), ("node_mask", ctypes.c_uint32),
                ("luid_valid", ctypes.c_uint32)]  # fmt: skip


class _Properties2(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("next", ctypes.c_void_p),
                ("properties", ctypes.c_uint8 * _PROPERTIES_SIZE)]  # fmt: skip


@cache
def device_uuids() -> Mapping[str, tuple[str, ...]]:
    """Return name -> the UUIDs of the GPUs of this name, in Vulkan's order.

    Empty if there is no Vulkan 1.1 loader on the library search path.
    """
    try:
        vulkan = ctypes.CDLL(_LIBRARY)
        properties_of = vulkan.vkGetPhysicalDeviceProperties2
    except (OSError, AttributeError):
        return {}
    application = _ApplicationInfo(type=_APPLICATION_INFO, api_version=_VERSION_1_1)
    info = _InstanceCreateInfo(type=_INSTANCE_CREATE_INFO, application=ctypes.pointer(application))
    instance = ctypes.c_void_p()
    if vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)):
        return {}
    try:
        found: dict[str, tuple[str, ...]] = {}
        for device in _physical_devices(vulkan, instance):
            name, uuid = _identity(properties_of, device)
            found[name] = (*found.get(name, ()), uuid)
        return found
    finally:
        vulkan.vkDestroyInstance(instance, None)


def _physical_devices(vulkan: ctypes.CDLL, instance: ctypes.c_void_p) -> list[int]:
    count = ctypes.c_uint32()
    if vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None):
        return []
    devices = (ctypes.c_void_p * count.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
    return [device for device in devices[: count.value] if device is not None]


def _identity(properties_of: ctypes._FuncPointer, device: int) -> tuple[str, str]:
    """The name and the UUID of one physical device."""
    identity = _IdProperties(type=_ID_PROPERTIES)
    found = _Properties2(type=_PROPERTIES_2, next=ctypes.addressof(identity))
    properties_of(ctypes.c_void_p(device), ctypes.byref(found))
    name = bytes(found.properties)[_NAME_AT : _NAME_AT + 256].split(b"\0")[0]
    return name.decode("utf-8", "replace"), bytes(identity.device_uuid).hex()
