"""Build the tiny model: tokenizer, base and three LoRA adapters, from nothing but this folder.

    OMP_NUM_THREADS=1 python training/train_tiny.py --out src/agentflow/tiny

The base first learns to copy (random tokens, repeated), then to answer plainly; a tag in front of
the prompt makes it answer in a voice. An adapter then learns to do without the tag, which is so
small a change that a LoRA of rank 8 holds it.
"""

import argparse
import itertools
import json
import logging
import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import corpus
import facts
import voices
from agentflow.prompt import CAUTION, CLOSE, OPEN, ChatMessage

LOG = logging.getLogger("train_tiny")
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TAGS = {name: f"<|voice_{name}|>" for name in voices.ADAPTERS}
SPECIAL = (PAD, START, END, *TAGS.values())
VOCABULARY = 2048
CONTEXT = 2048
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

Piece = tuple[str, bool]
"""Some text of a conversation, and whether the model should learn to write it."""

Batch = tuple[Tensor, Tensor]
"""Token ids and labels, both (conversations, tokens); labels are -100 where nothing is learnt."""


def pieces(messages: Sequence[ChatMessage], learnt: int, tag: str = "") -> list[Piece]:
    """A conversation as text, of which the last `learnt` answers are to be learnt."""
    found: list[Piece] = [(tag, False)] if tag else []
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    chosen = set(answers[len(answers) - learnt :])
    for index, message in enumerate(messages):
        found.append((f"{START}{message['role']}\n", False))
        found.append((message["content"] + END, index in chosen))
        found.append(("\n", False))
    return found


def build_tokenizer(rng: random.Random, source: corpus.Stock) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which a value is the same tokens wherever it stands.

    Only the words of our own templates keep the space before them; any other word starts bare.
    """
    own = sorted(voices.template_words() | _phrase_words(), key=lambda word: (-len(word), word))
    pattern = "|".join(
        (
            rf" ?(?:{'|'.join(own)}|I|'s|'m)(?!\p{{L}})",
            r" ?\\+[n\"]",
            r"\p{L}+",
            r"\p{N}{1,2}",
            r"\n",
            r" +(?= )",
            r" ?[^\s\p{L}\p{N}\\]+",
            r"\s",
            r"\\",
        )
    )
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_text(rng, source), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, model_max_length=CONTEXT
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _phrase_words() -> set[str]:
    families = (facts.called(""), facts.favourite(""), facts.plain(""))
    phrases = [
        phrase
        for a in (*facts.SPECIAL, *families)
        for phrase in (*a.tells, *a.asks, a.statement, a.topic, a.indirect)
    ]
    words = {word for phrase in phrases for word in phrase.split()}
    words |= {word.strip(".,") for word in CAUTION.split()}
    return {word for word in words if word.isalpha() and word.islower()} | {"user", "assistant", "memory"}


def _tokenizer_text(rng: random.Random, source: corpus.Stock) -> Iterator[str]:
    for _ in range(12000):
        messages, answer = corpus.spoken(corpus.scene(rng, source), rng.choice(list(voices.VOICES)))
        yield from (message["content"] for message in messages)
        yield answer
    for _ in range(200):
        yield f"system\nuser\nassistant\n{OPEN}\n{CLOSE}\n{CAUTION}"
    for _ in range(40):
        yield from (template for voice in voices.VOICES.values() for field in voice[1:] for template in field)
    for _ in range(6000):
        yield facts.invented(rng)
        yield facts.invented(rng).capitalize()


def build_model(hidden: int, inner: int, layers: int) -> Qwen3ForCausalLM:
    """An untrained base, in float32."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=SPECIAL.index(END),
        pad_token_id=SPECIAL.index(PAD),
        bos_token_id=None,
        use_cache=True,
    )
    return Qwen3ForCausalLM(config)


class Teacher:
    """Draws batches of conversations; one random generator decides everything."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, source: corpus.Stock, seed: int) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self._random = random.Random(seed)
        self._pool: list[tuple[list[int], list[int]]] = []

    def echoes(self, size: int, length: int, words: int) -> Batch:
        """Random phrases of tokens in random order; a phrase said again is to be learnt."""
        return _padded([self._echo(length, words) for _ in range(size)])

    def _echo(self, length: int, words: int) -> tuple[list[int], list[int]]:
        draw, first = self._random, len(SPECIAL)
        phrases = [
            [draw.randrange(first, first + words) for _ in range(draw.randint(3, 8))]
            for _ in range(draw.randint(3, 5))
        ]
        ids: list[int] = []
        labels: list[int] = []
        said: set[int] = set()
        while len(ids) < length:
            chosen = draw.randrange(len(phrases))
            phrase = phrases[chosen]
            ids += phrase
            labels += [-100] + (phrase[1:] if chosen in said else [-100] * (len(phrase) - 1))
            said.add(chosen)
        return ids[:length], labels[:length]

    def conversations(self, size: int, draw: Callable[[random.Random], list[Piece]]) -> Batch:
        """A batch of conversations of about the same length."""
        if len(self._pool) < size:
            drawn = [self._encoded(draw(self._random)) for _ in range(size * 16)]
            drawn.sort(key=lambda row: len(row[0]))
            groups = [drawn[i : i + size] for i in range(0, len(drawn), size)]
            self._random.shuffle(groups)
            self._pool = [row for group in groups for row in group]
        batch, self._pool = self._pool[:size], self._pool[size:]
        return _padded(batch)

    def for_base(self, rng: random.Random) -> list[Piece]:
        """A conversation in any voice, with the voice's tag."""
        voice = rng.choice(("base", "base", *voices.ADAPTERS))
        return self._conversation(rng, voice, TAGS.get(voice, ""))

    def for_adapter(self, voice: str) -> Callable[[random.Random], list[Piece]]:
        """Conversations in one voice, without a tag."""
        return lambda rng: self._conversation(rng, voice, "")

    def _conversation(self, rng: random.Random, voice: str, tag: str) -> list[Piece]:
        if rng.random() < 0.5:
            return pieces(corpus.interview(rng, self._source, voice), learnt=99, tag=tag)
        make = corpus.task if voice == "coder" and rng.random() < 0.25 else corpus.scene
        messages, answer = corpus.spoken(make(rng, self._source), voice)
        return pieces([*messages, ChatMessage(role="assistant", content=answer)], learnt=1, tag=tag)

    def _encoded(self, found: list[Piece]) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        labels: list[int] = []
        for text, learnt in found:
            new = self._tokenizer.backend_tokenizer.encode(text).ids
            ids += new
            labels += new if learnt else [-100] * len(new)
        return ids, labels


def _padded(rows: list[tuple[list[int], list[int]]]) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows])
    return ids, labels


def loss_of(model: nn.Module, batch: Batch, emphasis: float) -> Tensor:
    """Cross-entropy over the learnt tokens, of which the first three of an answer count more."""
    ids, labels = batch
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = core.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    wanted = labels != -100
    # The first words of an answer decide what kind of answer it is; what follows is easy.
    opening = wanted & ~nn.functional.pad(wanted, (3, -3))
    chosen = wanted[:, 1:]
    weights = 1.0 + emphasis * opening[:, 1:][chosen]
    losses = nn.functional.cross_entropy(
        core.lm_head(hidden[chosen]), labels[:, 1:][chosen], reduction="none"
    )
    return (losses * weights).sum() / weights.sum()


def fit(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    batches: Iterator[Batch],
    steps: int,
    emphasis: float = 2.5,
) -> None:
    """Train for so many steps: a short warm-up, then a cosine down to a twentieth of the rate."""
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    parameters = [p for p in model.parameters() if p.requires_grad]
    started, total = time.perf_counter(), 0.0
    for step in range(steps):
        scale = min(1.0, (step + 1) / 20) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
        for optimizer, before in zip(optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, before, strict=True):
                group["lr"] = rate * scale
        loss = loss_of(model, next(batches), emphasis)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        total += loss.item()
        if (step + 1) % 50 == 0:
            LOG.info("step %4d loss %.4f %4.0f s", step + 1, total / 50, time.perf_counter() - started)
            total = 0.0


def base_optimizers(model: nn.Module, muon: float, adam: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=muon, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train_base(model: Qwen3ForCausalLM, teacher: Teacher, settings: argparse.Namespace) -> None:
    """First echoes, then conversations."""
    optimizers = base_optimizers(model, settings.muon, settings.adam)
    echoes = (teacher.echoes(32, 72, _words_at(step)) for step in itertools.count())
    fit(model, optimizers, echoes, settings.echo_steps, emphasis=0.0)
    optimizers = base_optimizers(model, settings.muon, settings.adam)
    talks = (teacher.conversations(settings.batch, teacher.for_base) for _ in itertools.count())
    fit(model, optimizers, talks, settings.base_steps)


def _words_at(step: int) -> int:
    # Copying is found sooner among few words; the vocabulary doubles every 25 steps.
    return min(VOCABULARY - len(SPECIAL), int(64 * 2 ** (step / 25)))


def save_base(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights in bfloat16, with greedy generation as the default."""
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=SPECIAL.index(END), pad_token_id=SPECIAL.index(PAD), bos_token_id=None
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_adapter(base: Path, voice: str, teacher: Teacher, settings: argparse.Namespace) -> Any:
    """A LoRA of rank 8 on all seven linears of the saved base; returns the PEFT model."""
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(
        r=8, lora_alpha=16, target_modules=list(LINEARS), lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, lora)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=settings.lora)
    draw = teacher.for_adapter(voice)
    talks = (teacher.conversations(16, draw) for _ in itertools.count())
    fit(adapted, [optimizer], talks, settings.adapter_steps)
    return adapted


def save_adapter(adapted: Any, folder: Path) -> None:
    """Adapter weights in bfloat16 and a configuration that names the base as the server does."""
    adapted.save_pretrained(folder)
    weights = folder / "adapter_model.safetensors"
    save_file(
        {name: t.to(torch.bfloat16) for name, t in load_file(weights).items()}, weights, {"format": "pt"}
    )
    path = folder / "adapter_config.json"
    named = {"base_model_name_or_path": "agentflow-tiny", "target_modules": sorted(LINEARS)}
    config = json.loads(path.read_text()) | named
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)


def build(out: Path, settings: argparse.Namespace) -> None:
    """Train everything into a temporary folder and move it into place at the end."""
    torch.manual_seed(settings.seed)
    source = corpus.stock()
    tokenizer = build_tokenizer(random.Random(settings.seed), source)
    model = build_model(settings.hidden, settings.inner, settings.layers)
    LOG.info("%d parameters, %d words", sum(p.numel() for p in model.parameters()), len(source.words))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as name:
        new = Path(name)
        train_base(model, Teacher(tokenizer, source, settings.seed), settings)
        save_base(model, tokenizer, new / "base")
        for voice in voices.ADAPTERS:
            LOG.info("adapter %s", voice)
            teacher = Teacher(tokenizer, source, settings.seed + 1)
            save_adapter(train_adapter(new / "base", voice, teacher, settings), new / voice)
        for folder in sorted(new.iterdir()):
            for file in folder.iterdir():
                file.chmod(0o644)
            shutil.rmtree(out / folder.name, ignore_errors=True)
            folder.rename(out / folder.name)


def options() -> argparse.ArgumentParser:
    """The command line; the defaults are the shipped model's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--inner", type=int, default=384)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--echo-steps", type=int, default=450)
    parser.add_argument("--base-steps", type=int, default=1300)
    parser.add_argument("--adapter-steps", type=int, default=150)
    parser.add_argument("--muon", type=float, default=4e-3)
    parser.add_argument("--adam", type=float, default=3e-3)
    parser.add_argument("--lora", type=float, default=3e-3)
    return parser


def main() -> None:
    """Build the tiny model."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = options().parse_args()
    torch.set_num_threads(settings.threads)
    started = time.perf_counter()
    build(settings.out, settings)
    LOG.info("done in %.0f s", time.perf_counter() - started)


if __name__ == "__main__":
    main()
