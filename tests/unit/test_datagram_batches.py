"""What hoop promises about a batch of datagrams beyond asyncio."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import hoop

LOCALHOST = "127.0.0.1"
BATCH = 16


def test_each_datagram_is_a_callback_of_its_own() -> None:
    async def main() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        done = loop.create_future()
        order: list[Any] = []

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                order.append(data[0])
                loop.queue_microtask(order.append, f"microtask of {data[0]}")
                loop.next_tick(order.append, f"tick of {data[0]}")
                if data[0] == 2:
                    loop.call_soon(done.set_result, None)

        transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(LOCALHOST, 0))
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            for number in range(3):
                peer.sendto(bytes([number]), transport.get_extra_info("sockname"))
            await done
        transport.close()
        return order

    expected = [item for number in range(3) for item in (number, f"tick of {number}", f"microtask of {number}")]
    assert hoop.run(main()) == expected


def test_a_batch_is_bounded_so_that_others_get_their_turn() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        received: list[bytes] = []
        seen_by_others: list[int] = []

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                received.append(data)
                if len(received) == 1:
                    loop.call_soon(lambda: seen_by_others.append(len(received)))
                if len(received) == 3 * BATCH:
                    done.set_result(None)

        transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(LOCALHOST, 0))
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            for _ in range(3 * BATCH):
                peer.sendto(b"x", transport.get_extra_info("sockname"))
            await done
        transport.close()
        return seen_by_others

    assert hoop.run(main()) == [BATCH]


def test_the_tuple_of_a_sender_is_made_once() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        senders: list[Any] = []

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                senders.append(addr)
                if len(senders) == 4:
                    done.set_result(None)

        transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(LOCALHOST, 0))
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            for _ in range(4):
                peer.sendto(b"x", transport.get_extra_info("sockname"))
            await done
        transport.close()
        return all(sender is senders[0] for sender in senders)

    assert hoop.run(main())
