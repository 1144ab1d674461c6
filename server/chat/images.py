"""Images in chats: the tenant's image head says what each is, and the model reads that in words.

The models served here read text. A part with an image is replaced by what the head says of it, as
``[image: receipt, 93 %]``, wherever the request's messages are read (``api/openai/chat``,
``api/openai/responses``), so what is kept of a request has no image either. It stands in the customer's
turn, and like all of that it can neither end the turn nor begin another (``prompt.py``).
"""

from collections.abc import Sequence

from connectors.control_tokens import without_control_tokens
from server.auth.keys import Principal
from server.db.session import Database
from server.embeddings.images import ImageInput, classify_images
from server.embeddings.service import EmbeddingService
from server.errors import Invalid
from server.heads import service as heads
from server.limits.limiter import RateLimiter
from server.retrieval.schemas import ImageLabel
from server.settings import Settings
from server.usage.ledger import UsageLedger
from server.usage.schemas import Usage
from training.heads.config import IMAGE

_BRACKETS = str.maketrans("[]", "()")


class ImageTriage:
    """Says what images are, with the live image head of their tenant, or the shared one.

    Args:
        database: where heads are rows.
        embeddings: whose process unpacks images and applies heads.
        ledger: counts each image, as a request of the model ``image@<version>``, or ``shared-image@<version>``.
        limiter: admits the images of a request as a request of their own, before work is done for them.
        settings: of where heads lie.

    Example:
        labels = await triage.label([ImageInput(url, "messages[0].content[1]")], principal)
        said = [as_text(label) for label in labels]
    """

    def __init__(
        self,
        database: Database,
        embeddings: EmbeddingService,
        ledger: UsageLedger,
        limiter: RateLimiter,
        settings: Settings,
    ) -> None:
        self._database = database
        self._embeddings = embeddings
        self._ledger = ledger
        self._limiter = limiter
        self._settings = settings

    async def label(
        self, images: Sequence[ImageInput], principal: Principal
    ) -> tuple[ImageLabel, ...]:
        """What each image is, in their order.

        Raises:
            Invalid: the tenant has no live image head (``no_image_head``), there are too many images, or
                one of them cannot be used.
            TooMany: the tenant or its key is at a limit, or has too many requests open.
            Conflict, Unavailable: as ``EmbeddingService.classify``.
        """
        if not images:
            return ()
        tenant_id = principal.require_tenant()
        async with self._database.reading() as session:
            head = await heads.find_used(session, tenant_id, IMAGE)
        if head is None:
            raise Invalid(
                f"'{images[0].param}' is an image, and the models served here read text. Train an image "
                "head, which says in words what an image is, and promote it (tenantune heads upload "
                "IMAGES.zip --task image); or send text only.",
                param=images[0].param,
                code="no_image_head",
            )
        folder = heads.weights_folder(self._settings, head)
        async with self._limiter.admit(principal, tokens=0):
            found = await classify_images(self._embeddings, images, tenant=tenant_id, head=folder)
        shared = head.tenant_id is None
        for _ in found:
            self._ledger.add(
                Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0),
                tenant_id=tenant_id,
                key_id=principal.key_id,
                model=f"{'shared-' * shared}{IMAGE}@{head.version}",
                failed=False,
            )
        return tuple(
            ImageLabel(
                label=each.label,
                probability=each.probability,
                version=head.version,
                shared=shared,
            )
            for each in found
        )


def as_text(image: ImageLabel) -> str:
    """What the model reads in place of an image."""
    label = " ".join(without_control_tokens(image.label).translate(_BRACKETS).split())
    return f"[image: {label}, {100 * image.probability:.0f} %]"
