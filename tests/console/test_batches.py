"""The page of batches: an account's, with what they came to, and a button that stops one."""

from engine.script import RequestScript, Script, emit, sleep
from tests.console.conftest import ADMIN, visitor
from tests.gateway.conftest import GatewayServers
from tests.gateway.test_batches import ended, jsonl, line, submit
from tests.gateway.test_files import of_another_account

PLAY = Script(
    requests=(RequestScript((emit("slow"), *[sleep(0.5)] * 6), match="wait"), RequestScript((emit("one two"),)))
)


async def test_a_batch_is_shown_to_its_account_and_stopped(gateway_server: GatewayServers) -> None:
    async with gateway_server(PLAY, admin_key=ADMIN) as server, server.client() as http:
        done = await ended(http, await submit(http, jsonl([line(1), line(2)])))
        runs = await submit(http, jsonl([line(1, said="wait")]))
        stranger = await of_another_account(server)
        async with visitor(server) as owner, visitor(server) as other, visitor(server) as operator:
            await owner.sign_in(server.secret)
            await operator.sign_in(ADMIN)
            await other.sign_in(stranger)
            for who in (owner, operator):
                page = (await who.open("/console/batches")).text
                assert done["id"] in page
                assert "2 of 2" in page
            assert done["id"] not in (await other.open("/console/batches")).text
            assert (await other.send(f"/console/batches/{runs['id']}/cancel")).status_code == 404
            requests = (await owner.open("/console/requests")).text
            assert requests.count("<td>batch</td>") == 2
            answer = await owner.send(f"/console/batches/{runs['id']}/cancel")
            assert answer.headers["location"] == "/console/batches?done=cancelled"
            assert (await ended(http, runs))["status"] == "cancelled"
