"""pika's asyncio connection, with the parts that must work differently."""

import struct
from collections.abc import Sequence
from typing import Any, Final, cast

import pika
import pika.frame
import pika.spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import ConnectionClosedByBroker, InvalidFrameError, StreamLostError

from coordinator.protocol.wire import HEADER_MALFORMED
from coordinator.transports.rabbitmq.heartbeats import TwoHeartbeats

_CONTENT = (pika.frame.Header, pika.frame.Body)
_FRAME_BYTES = pika.spec.FRAME_HEADER_SIZE + pika.spec.FRAME_END_SIZE
ADDED_BYTES_MAX = 1 << 16
"""How much the broker may add to the properties of a message, such as `x-delivery-count` or `x-death`. Properties are
always one frame, so properties that just fitted into a frame exceed it when the message is delivered again."""


ANSWERED_WITH_TLS: Final = "it answered with TLS"
"""What is said of a first frame that is none, but a record of TLS. pika makes a text of it, among others."""
_TLS_RECORD: Final = b"\x15\x03"
"""The beginning of an alert: no frame of AMQP has this kind."""


class FrameTooLarge(ValueError):
    """Raised for a message whose properties take more than a frame: the broker would end the connection."""


class PikaConnection(AsyncioConnection):  # type: ignore[misc]  # pika has no types
    """One connection of pika's on the event loop's own transports."""

    closed_by_broker: ConnectionClosedByBroker | None = None
    """The broker's reason for closing the connection. While the connection is opening, pika keeps it as text only."""
    _is_aborted = False

    @property
    def unsent_bytes(self) -> int:
        """How many bytes the transport has not yet given to the socket."""
        return 0 if self._transport is None else int(self._transport.get_write_buffer_size())

    def abort(self) -> None:
        """Drop the socket silently, or give the attempt up at any point: pika would go on with it."""
        if self._is_aborted or (self._transport is None and self._connection_workflow is None):
            return
        self._is_aborted = True
        self._nbio.give_up()
        self._terminate_stream(StreamLostError("aborted by us"))

    def _create_heartbeat_checker(self) -> TwoHeartbeats | None:
        return TwoHeartbeats(self, self.params.heartbeat) if self.params.heartbeat else None

    def _read_frame(self) -> tuple[int, Any]:
        """Read a frame. If pika cannot decode its properties, the frame gets properties that say so.

        Anybody may publish, and pika raises on some headers that AMQP allows (an infinite float, a date beyond year
        9999, a type it does not know). The exception would end this connection and each one after it, at the same
        message, and with them the lane.
        """
        try:
            read = cast("tuple[int, Any]", super()._read_frame())
        except InvalidFrameError:
            raise
        except Exception:
            kind, channel, size = struct.unpack_from(">BHL", self._frame_buffer)
            if kind != pika.spec.FRAME_HEADER:
                raise
            content = self._frame_buffer[pika.spec.FRAME_HEADER_SIZE :][:size]
            _, _, body_size = struct.unpack_from(">HHQ", content)
            properties = pika.BasicProperties(headers={HEADER_MALFORMED: bytes(content[12:]).hex()[:1000]})
            consumed = pika.spec.FRAME_HEADER_SIZE + size + pika.spec.FRAME_END_SIZE
            return consumed, pika.frame.Header(channel, body_size, properties)
        if read[1] is None and len(self._frame_buffer) >= pika.spec.FRAME_HEADER_SIZE:
            self._check_size()
        return read

    def _check_size(self) -> None:
        """Refuse an impossible frame size at once: pika would wait for the rest, until the heartbeat timeout."""
        if self._frame_buffer.startswith(_TLS_RECORD):
            raise InvalidFrameError(ANSWERED_WITH_TLS)
        kind, _, size = struct.unpack_from(">BHL", self._frame_buffer)
        added = ADDED_BYTES_MAX if kind == pika.spec.FRAME_HEADER else 0
        if size + _FRAME_BYTES > self.params.frame_max + added and not self._frame_buffer.startswith(b"AMQP"):
            raise InvalidFrameError(f"a frame of {size} bytes was announced; {self.params.frame_max} were agreed")

    def _process_frame(self, frame_value: Any) -> None:
        """Give a message's frame to its channel at once: pika would first look for callbacks, and there can be none."""
        if isinstance(frame_value, _CONTENT) or isinstance(
            getattr(frame_value, "method", None), pika.spec.Basic.Deliver
        ):
            self.frames_received += 1
            self._deliver_frame_to_channel(frame_value)
        else:
            super()._process_frame(frame_value)

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        """Hand the frames of one message over as one, so that no loop sends them one by one."""
        if len(marshaled_frames) > 1:
            # The first is the method, the second the properties, which are always one frame.
            size = len(marshaled_frames[1])
            if size > self.params.frame_max:
                raise FrameTooLarge(f"its properties take {size} bytes, and a frame {self.params.frame_max}")
        super()._output_marshaled_frames([b"".join(marshaled_frames)])

    def _on_connection_close_from_broker(self, method_frame: Any) -> None:
        self.closed_by_broker = ConnectionClosedByBroker(method_frame.method.reply_code, method_frame.method.reply_text)
        super()._on_connection_close_from_broker(method_frame)

    def _proto_connection_lost(self, error: BaseException | None) -> None:
        """Give a stream that ends without an error a reason: pika would assume that it ended the stream itself."""
        if error is None and not self._got_eof and self._error is None:
            error = ConnectionResetError("it ended without a word")
        super()._proto_connection_lost(error)
