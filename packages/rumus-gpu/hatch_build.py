"""Puts the WGSL files of the repository's shaders/ into the wheel and the sdist."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShaderHook(BuildHookInterface[Any]):
    """Force-includes ../../shaders, except where the package has it or reads it directly."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folder to what is built; a missing one is a build error."""
        root = Path(self.root)
        if version == "editable" or (root / "PKG-INFO").exists():
            return  # a checkout reads shaders/ directly; an unpacked sdist carries its copy
        prefix = "src/" if self.target_name == "sdist" else ""
        build_data["force_include"][str(root.parents[1] / "shaders")] = f"{prefix}rumus/gpu/shaders"
