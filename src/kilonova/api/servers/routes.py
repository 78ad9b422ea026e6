"""Operations on servers."""

from __future__ import annotations

from kilonova.api.routing import Action, Route

ROUTES: tuple[Route | Action, ...] = ()
