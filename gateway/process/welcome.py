"""What `farebox serve` prints when it is ready: a key, a curl line and a Python line that work as printed."""

import os
import shlex
import sys
from pathlib import Path

from gateway.models.catalog import Catalog
from gateway.process.bootstrap import FirstKeys
from gateway.settings import Settings

ANY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def welcome(settings: Settings, catalog: Catalog, host: str, port: int, first_keys: FirstKeys) -> str:
    """The text; the key is in it only where it was made just now."""
    address = f"{url_of('127.0.0.1' if host in ANY_ADDRESS else host, port)}{settings.root_path}"
    base_url = f"{address}/v1/openai"
    console = f"\nIn a browser: {address}/console\n" if settings.console else ""
    model = catalog.names[0]
    key, shell_key, python_key = "", '"Authorization: Bearer $FAREBOX_KEY"', 'os.environ["FAREBOX_KEY"]'
    if first_keys.made is not None:
        key = f"\n  Your key, shown this once:  {first_keys.made}\n"
        shell_key = shlex.quote(f"Authorization: Bearer {first_keys.made}")
        python_key = repr(first_keys.made)
    elif first_keys.given:
        key = (
            "\n  Your key is the one in FAREBOX_BOOTSTRAP_KEY. For the lines below:\n"
            '  export FAREBOX_KEY="$FAREBOX_BOOTSTRAP_KEY"\n'
        )
    else:
        farebox = _here(Path(sys.argv[0]))
        key = (
            f"\n  Use a key that you have, or make another with `{farebox} keys create NAME`, and put it\n"
            "  into the environment for the lines below:  export FAREBOX_KEY=fb-...\n"
        )
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    imports = "import os; " if first_keys.made is None else ""
    code = (
        f"{imports}from openai import OpenAI; "
        f'client = OpenAI(base_url="{base_url}", api_key={python_key}); '
        f'print(client.chat.completions.create(model="{model}", '
        'messages=[{"role": "user", "content": "Hello!"}]).choices[0].message.content)'
    )
    return f"""
Farebox is ready on {base_url} and serves {", ".join(catalog.names)}.
{console}{key}
  curl {base_url}/chat/completions -H "Content-Type: application/json" -H {shell_key} -d '{body}'

  {_here(Path(sys.executable))} - <<'END'
{_lines(code)}
END

  Press Ctrl-C to stop. Your data stays in {settings.data_dir}/ or the database that you named.
"""


def url_of(host: str, port: int) -> str:
    """RFC 3986 section 3.2.2: an IPv6 address is written in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _lines(code: str) -> str:
    return "\n".join(line.strip() for line in code.split("; "))


def _here(path: Path) -> str:
    """The path as one would type it from the working directory: this Python has the OpenAI SDK."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
