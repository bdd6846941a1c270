"""The terminal of a conversation: reads what a person types, shows answers in the colours of their tokens' origin, and
the figures of the running answer in a line below it. Into a file or pipe it writes plain text.
"""

import contextlib
import os
import readline
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from outrider import show
from outrider.chat.answer import Answer, Update
from outrider.chat.interrupts import Interrupts

_FENCE = '"""'
_MAX_HISTORY = 1000

# The status line is below the last line of the answer. The cursor stays behind the answer: it goes one line down,
# which scrolls if there is none, and up again, is saved, and restored when the line is written.
_BELOW = "\x1bD\x1b[A\x1b7\r\x1b[B\x1b[K"
_BACK = "\x1b8"
_CLEAR = "\x1b[J"


class Screen:
    """A `Listener` on a console."""

    def __init__(self, console: Console, *, is_interactive: bool, interrupts: Interrupts) -> None:
        """`is_interactive`: a person types; else inputs come from a file or pipe."""
        self._interrupts = interrupts
        self._console = console
        self._is_interactive = is_interactive
        self._has_status = is_interactive and console.is_terminal and not console.is_dumb_terminal
        self._column = 0

    # ---- answers

    def begin(self) -> None:
        self._column = 0

    def take(self, update: Update, answer: Answer) -> None:
        if self._has_status:
            self._write(_CLEAR)
        for text, is_draft in update.pieces:
            style = "" if is_draft is None else show.DRAFT_STYLE if is_draft else show.TARGET_STYLE
            self._console.print(Text(text, style), end="", soft_wrap=True, highlight=False)
            last = text.rpartition("\n")
            self._column = cell_len(last[2]) + (0 if last[1] else self._column)
        width = self._console.width
        # at the right edge terminals differ in where the cursor is: there the line appears with the next token
        if self._has_status and (self._column == 0 or self._column % width):
            self._write(_BELOW)
            self._console.print(Text(answer.figures[: width - 1], "dim"), end="", soft_wrap=True)
            self._write(_BACK)
        self._console.file.flush()

    def end(self, answer: Answer) -> None:
        if self._has_status:
            self._write(_CLEAR)
        self._console.print()
        if answer.seconds:
            seed = f" · seed {answer.settings.seed}" if answer.settings.temperature != 0.0 else ""
            drafts = "" if answer.settings.has_drafts else " · drafts off"
            self.say(f"{answer.figures}{seed}{drafts}")

    def say(self, text: str) -> None:
        self._console.print(Text(text, "dim"), soft_wrap=True)

    def _write(self, codes: str) -> None:
        self._console.file.write(codes)

    # ---- inputs

    def read(self) -> str | None:
        """The next input; None at the end of inputs. Ctrl-C discards what was typed."""
        while True:
            try:
                with self._interrupts.at_prompt():
                    return self._read()
            except KeyboardInterrupt:
                self._console.print()
                self.say("Ctrl-D or /exit ends.")
            except EOFError:
                return None

    def _read(self) -> str:
        lines = [input("you> " if self._is_interactive else "")]
        if lines[0].strip().startswith(_FENCE):
            lines[0] = lines[0].strip()[len(_FENCE) :]
            while not lines[-1].rstrip().endswith(_FENCE):
                lines.append(self._next_line())
            lines[-1] = lines[-1].rstrip()[: -len(_FENCE)]
            return "\n".join(lines).strip("\n")
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._next_line())
        return "\n".join(lines)

    def _next_line(self) -> str:
        return input("...> " if self._is_interactive else "")


def history_file() -> Path:
    """The file that keeps what was typed, in the folder that the system has for such files."""
    folder = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(folder) / "outrider" / "chat-history"


def load_history() -> None:
    """Make earlier inputs available to the arrow keys."""
    readline.set_history_length(_MAX_HISTORY)
    with contextlib.suppress(OSError):  # the first time there is none, and it is not worth an error
        readline.read_history_file(history_file())


def save_history() -> None:
    """Keep what was typed, readable by the user only."""
    path = history_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.write_history_file(path)
