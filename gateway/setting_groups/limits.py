"""The settings of rate limits, where they are counted, and idempotency."""

from pydantic import BaseModel, Field, SecretStr

from gateway.setting_types import WithoutRedis


class LimitSettings(BaseModel):
    """Durations are in seconds, sizes in bytes, where the name doesn't say otherwise."""

    adapters_max: int = Field(
        100, ge=0, description="LoRA adapters that may be added while the gateway runs, beside those of the cards."
    )
    limit_requests_per_minute: int | None = Field(
        None, ge=0, description="Requests per minute for each key and model, where the key has no number of its own."
    )
    limit_tokens_per_minute: int | None = Field(
        None, ge=0, description="Tokens per minute for each key and model, where the key has no number of its own."
    )
    limit_concurrent_requests: int | None = Field(
        200, ge=0, description="Requests at a time for each key and model, where the key has no number of its own."
    )
    limit_alternatives_per_slot: int = Field(
        5,
        ge=0,
        description="Alternatives per token (`top_logprobs`, over all choices) that count as one more request at a "
        "time; 0: they don't count.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="redis://user:password@host:port/0 (a server or a node of a Redis Cluster), or redis+sentinel://"
        "host:26379,other:26379/mymaster: where several processes share their limits. Default: each process limits for "
        "itself.",
    )
    redis_timeout_seconds: float = Field(
        0.1, gt=0, description="How long a request waits for Redis before it is limited without."
    )
    limits_without_redis: WithoutRedis = Field(
        "local", description="While Redis is away: `local` limits in each process, `refuse` answers 503."
    )
    idempotency_hours: float = Field(
        24.0, gt=0, description="How long the answer to a request with an Idempotency-Key can be had again."
    )
    idempotency_bytes_max: int = Field(
        4 * 2**20, ge=1024, description="Largest answer that is kept for its Idempotency-Key."
    )
