"""Networks in folders as the hub has them, read by the library that made them (diffusers, transformers)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ap3d.diffusion.loading import fingerprint, resolve_model_folder
from ap3d.errors import DataFileError, InputError
from ap3d.perception.exported import check_device


@dataclass(frozen=True)
class HubFolder:
    """A folder of weights that the package does not ship.

    Attributes:
        option: the configuration field and name, as ``perception.segmenter=segformer``.
        hub: id on the hub.
        terms: of the weights, shortly.
        what: it holds.
    """

    option: str
    hub: str
    terms: str
    what: str

    def find(self, path: str | Path | None, device: str) -> Path:
        """The folder at ``path``, or the hub id that was fetched before.

        Raises:
            InputError: nothing is there, or the device is absent.
        """
        check_device(device)
        try:
            return resolve_model_folder(str(path or self.hub))
        except InputError as error:
            line = f"fetch {self.hub} from the hub ({self.terms}) and write {self.option}:FOLDER"
            raise InputError(f"{error}; {line}") from None

    def read(self, kind: Any, folder: Path, **options: Any) -> tuple[Any, str]:
        """A model of class ``kind`` from its folder, and the fingerprint of its files; safetensors alone are read.

        Raises:
            DataFileError: it holds no such model.
        """
        try:
            model = kind.from_pretrained(str(folder), local_files_only=True, use_safetensors=True, **options)
        except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise DataFileError(f"{folder} holds no {self.what}: {str(error).splitlines()[0]}") from None
        return model, fingerprint([folder])
