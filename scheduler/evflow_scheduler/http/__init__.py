"""A scheduler over HTTP, where it is asked to listen: health and metrics.

`server` binds and serves, `health` judges, `routes` answers. Whoever adds routes makes a list of them in a module of its own here,
and `routes.all_routes` names it. Nothing of this is imported before somebody asks for it (starlette, uvicorn: 0.2 s).
"""
