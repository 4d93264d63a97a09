"""What every request body is."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Body(BaseModel):
    """Values are taken as they are: "5" is no number and 1 is no boolean. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


def wrong(param: str, message: str) -> PydanticCustomError:
    """An error of several fields together, put down to `param`."""
    return PydanticCustomError("field", "{text}", {"param": param, "text": message})
