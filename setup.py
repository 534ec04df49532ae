"""What of the clone goes into the package, and under which name.

holitom, llava: as they are.
holitom_eval: eval/, since everybody has an ``eval`` of their own: none may land in site-packages (eval/__init__.py). An
    editable install knows eval/ by both names.
holitom.configs, holitom.checkpoints: configs/ and the tiny model; ``holitom.shipped`` finds them here and there.
"""

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

MEASURING = ["", *(f".{name}" for name in find_packages("eval"))]
DATA = {"holitom.configs": "configs", "holitom.checkpoints": "checkpoints"}


class EditableWheel(editable_wheel):
    """In the clone ``eval`` keeps its name, also from another folder."""

    def run(self) -> None:
        """Called by pip install -e."""
        self.distribution.packages += [f"eval{name}" for name in MEASURING]
        super().run()


setup(
    packages=[*find_packages(include=["llava*", "holitom*"]), *(f"holitom_eval{name}" for name in MEASURING), *DATA],
    package_dir={"holitom_eval": "eval", **DATA},
    package_data={
        "holitom_eval": ["**/*.yaml", "**/*_yaml", "**/*.jinja", "**/*.css", "**/*.js"],
        "holitom.configs": ["**/*.yaml", "**/*.json"],
        "holitom.checkpoints": ["tiny/*"],
    },
    include_package_data=False,
    cmdclass={"editable_wheel": EditableWheel},
)
