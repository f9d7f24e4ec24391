"""The settings of files and batches, a part of `gateway.settings.Settings`."""

from pydantic import BaseModel, Field

from gateway.setting_types import StoreURL


class FileSettings(BaseModel):
    """Sizes are in bytes."""

    files_url: StoreURL | None = Field(
        None,
        description="s3://bucket/folder: where files are kept, in an S3-compatible store; AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL say how it is reached. Default: the data folder, which "
        "all processes must then share.",
    )
    file_bytes_max: int = Field(200 * 2**20, ge=1024, description="Largest file that a client may upload.")
    file_account_bytes_max: int = Field(
        20 * 2**30, ge=1024, description="Most bytes in the files of one account, results of batches included."
    )
    file_days: float = Field(
        30.0, gt=0, description="How long a file is kept whose client doesn't say, results of batches included."
    )
    batch_lines_max: int = Field(50_000, ge=1, description="Most requests in one batch.")
    batch_body_bytes_max: int = Field(
        32 * 2**20, ge=1024, description="Largest body of a POST to /v1/messages/batches, which holds all its requests."
    )
    batch_hours: float = Field(
        24.0, gt=0, description="How long a batch may take; what wasn't reached by then ends as expired."
    )
    batch_open_max: int = Field(100, ge=1, description="Most batches of one account that haven't ended.")
    batch_at_once_max: int = Field(
        8, ge=0, description="Batches that one process works on at a time; 0: it leaves them to others."
    )
    batch_requests_max: int | None = Field(
        None,
        ge=1,
        description="Most requests of batches that one process runs at a time on each engine. Default: as many as "
        "there is room for.",
    )
    batch_check_seconds_max: float = Field(
        300.0, gt=0, description="CPU time that checking a batch's file may take, in a process of its own."
    )
    batch_check_memory_bytes_max: int = Field(
        2**30, ge=2**28, description="Most address space of the process that checks a batch's file."
    )
