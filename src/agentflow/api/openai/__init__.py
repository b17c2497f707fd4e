"""The door for clients of OpenAI: /v1."""

from fastapi import APIRouter

from agentflow.api.openai import chat, embeddings, kept, models, responses
from agentflow.api.openai.errors import InTheirShape

router = APIRouter(prefix="/v1", tags=["OpenAI"])
router.include_router(models.router)
router.include_router(chat.router)
router.include_router(responses.router)
router.include_router(kept.router)
router.include_router(embeddings.router)

__all__ = ["InTheirShape", "router"]
