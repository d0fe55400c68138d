"""Which part answers to which name, and the wiring of a recipe: the only place that knows both sides of an edge."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from drllama.errors import MissingExtra, RecipeError
from drllama.protocols import AnswerMany, Source, Teacher
from drllama.protocols import Student as StudentProtocol
from drllama.recipe import Endpoint, LocalTeacher, PubMedQADemo, Recipe, Recorded, Student
from drllama.replies import BatchBook, RequestStore
from drllama.sources.tasks import task_of
from drllama.stages.plan import Destination, Price
from drllama.types import Task

if TYPE_CHECKING:
    from drllama.teachers import Ledger

SOURCES = {
    "pubmedqa": "drllama.sources.pubmedqa:PubMedQASource",
    "pubmedqa-demo": "drllama.sources.pubmedqa_demo:PubMedQADemoSource",
    "jsonl": "drllama.sources.tables:TableSource",
    "csv": "drllama.sources.tables:TableSource",
}
CAUSAL_STUDENT = "drllama.students.causal:CausalStudent"
_PRICES = resources.files("drllama") / "prices.yaml"
MACHINE = "drllama.students.machine:measure_machine"


def load(place: str) -> Any:  # noqa: ANN401  whatever the module keeps under this name
    """Return what ``module:attribute`` names, imported now and not before.

    Raises:
        MissingExtra: a package that the module needs isn't installed.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("drllama"):
            raise
        raise MissingExtra(f"{error.name} isn't installed; pip install 'drllama[train]'") from error


def find_demo_questions() -> None:
    """Read the demo's questions once.

    Raises:
        DrLlamaError: their package is missing or changed; the message has the command that brings it.
    """
    load(SOURCES["pubmedqa-demo"])(settings=PubMedQADemo()).load()


def make_source(recipe: Recipe) -> Source:
    """Return the recipe's source of questions."""
    task = task_of(recipe.task) if recipe.task else None
    source: Source = load(SOURCES[recipe.data.kind])(settings=recipe.data, task=task)
    return source


def price_of(recipe: Recipe) -> Price | None:
    """Return what the recipe's teacher costs: the recipe's own word, else the dated table's, else None: unknown.

    In batches it is a share of that.
    """
    match recipe.teacher:
        case Endpoint(usd_per_million_tokens=(tokens_in, tokens_out)) as settings:
            return _price(tokens_in, tokens_out, "the recipe", settings)
        case Endpoint(base_url=base_url, model=model) as settings:
            found = yaml.safe_load(_PRICES.read_text(encoding="utf-8")).get(urlsplit(base_url).hostname, {}).get(model)
            if found is None:
                return None
            tokens_in, tokens_out = found["price"]
            return _price(tokens_in, tokens_out, f"price table, seen {found['seen']}", settings)
        case LocalTeacher() | Recorded():
            return Price(usd_per_million_in=0, usd_per_million_out=0, source="nobody is paid")
        case None:
            return None


def _price(tokens_in: float, tokens_out: float, source: str, settings: Endpoint) -> Price:
    if not settings.batch:
        return Price(usd_per_million_in=tokens_in, usd_per_million_out=tokens_out, source=source)
    share = settings.batch_price_share
    return Price(
        usd_per_million_in=tokens_in * share,
        usd_per_million_out=tokens_out * share,
        source=f"{source}, times {share:g} in batches",
    )


def asked_live(recipe: Recipe) -> Recipe:
    """Return the recipe with a teacher that is asked live, not in batches."""
    if not isinstance(recipe.teacher, Endpoint):
        return recipe
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"batch": False})})


def destination_of(recipe: Recipe) -> Destination | None:
    """Return where the recipe's teacher would send text; None: nowhere.

    Raises:
        RecipeError: the address isn't one, or holds a password.
    """
    if not isinstance(recipe.teacher, Endpoint):
        return None
    http = import_module("drllama.teachers.http")
    host: str = http.host_of(recipe.teacher.base_url)
    here: bool = http.is_this_machine(host)
    allowed = here or host.lower() in {one.lower() for one in recipe.allow_hosts}
    return Destination(host=host, is_this_machine=here, is_allowed=allowed)


def endpoint_of(recipe: Recipe) -> str:
    """Return where the recipe's teacher says that it is; of a model in this process, the hash of its weights tells.

    Raises:
        RecipeError: the recipe names no teacher.
    """
    match recipe.teacher:
        case Recorded(endpoint=endpoint):
            return endpoint
        case Endpoint(base_url=base_url):
            return base_url.rstrip("/")
        case LocalTeacher(model=model):
            weights_sha256 = load("drllama.students.loading:weights_sha256")(Student(model=model))
            endpoint = load("drllama.teachers.local:endpoint_of")(weights_sha256)
            return str(endpoint)
        case None:
            raise RecipeError("the recipe names no teacher; add a section teacher")


@asynccontextmanager
async def make_teacher(
    recipe: Recipe,
    *,
    replies: RequestStore,
    max_usd: float | None,
    max_calls: int | None,
    max_minutes: float | None,
    seed: int,
) -> AsyncIterator[tuple[Teacher, AnswerMany]]:
    """Give the recipe's teacher, wrapped so that no reply is lost or bought twice, and the way to ask it much at once.

    Raises:
        RecipeError: the host isn't allowed, or money is limited and the price unknown.
    """
    from drllama import teachers

    there = destination_of(recipe)
    if there and not there.is_this_machine and max_usd is None and max_calls is None:
        max_calls = 0  # Another machine's bill: nothing is sent before somebody says how much may be.
    ledger = teachers.Ledger(max_usd=max_usd, max_calls=max_calls, max_minutes=max_minutes)
    match recipe.teacher:
        case Endpoint() as settings:
            async with _http_teacher(recipe, settings, replies, ledger, seed) as asked:
                yield asked
        case LocalTeacher(model=model, batch_size=batch_size):
            loaded = load("drllama.students.loading:load_model")(Student(model=model))
            local = load("drllama.teachers.local:LocalTeacher")(
                loaded.model, loaded.tokenizer, weights_sha256=loaded.card.weights_sha256, batch_size=batch_size
            )
            async with teachers.Kept(local, replies) as kept:
                budgeted = teachers.Budgeted(kept, ledger, usd_per_million_tokens=(0.0, 0.0))
                yield teachers.Stored(budgeted, replies), partial(teachers.ask_all, in_flight=batch_size)
        case Recorded(endpoint=endpoint):
            yield teachers.Replay(replies, endpoint=endpoint), partial(teachers.ask_all, in_flight=64)
        case None:
            raise RecipeError("the recipe names no teacher; add a section teacher")


@asynccontextmanager
async def _http_teacher(
    recipe: Recipe, settings: Endpoint, replies: RequestStore, ledger: "Ledger", seed: int
) -> AsyncIterator[tuple[Teacher, AnswerMany]]:
    from drllama import teachers

    teacher: Teacher
    batches = BatchBook(replies)
    async with teachers.http_teacher(
        settings,
        replies=replies,
        ledger=ledger,
        seed=seed,
        allow_hosts=recipe.allow_hosts,
        usd_per_million_tokens=_tokens_usd(price_of(asked_live(recipe))),
    ) as teacher:
        if batches.open_batches(teacher.endpoint):
            teacher = teachers.Stored(teachers.NotTwice(teacher, batches), replies)
        if not settings.batch:
            yield teacher, partial(teachers.ask_all, in_flight=teachers.asked_at_once(settings))
            return
        async with teachers.batched(
            settings,
            batches=batches,
            replies=replies,
            ledger=ledger,
            seed=seed,
            allow_hosts=recipe.allow_hosts,
            usd_per_million_tokens=_tokens_usd(price_of(recipe)),
        ) as ask_all:
            yield teacher, ask_all


def _tokens_usd(price: Price | None) -> tuple[float, float] | None:
    return (price.usd_per_million_in, price.usd_per_million_out) if price else None


def make_token_counter(recipe: Recipe) -> Callable[[str], int]:
    """Return what counts a text's tokens, by the student's tokenizer; a teacher's own may differ by a tenth."""
    tokenizer = load("drllama.students.loading:load_tokenizer")(recipe.student)
    return lambda text: len(tokenizer(text)["input_ids"])


def make_student(recipe: Recipe, task: Task) -> StudentProtocol:
    """Return the recipe's student, its weights in memory."""
    apart = recipe.finetune.reads_contexts_apart
    student: StudentProtocol = load(CAUSAL_STUDENT)(recipe.student, task, contexts_apart=apart)
    return student
