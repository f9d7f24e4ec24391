"""An MCP server with one tool, as an agent starts it."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("barn")


@server.tool()
def count_sacks(year: int) -> str:
    """How many sacks there were in a year."""
    return f"In {year} there were 4712 sacks."


if __name__ == "__main__":
    server.run()
