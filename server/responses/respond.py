"""A response from its beginning to its end, streamed or whole."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from server.responses.answer import IncompleteDetails, Response, ResponseError, Usage
from server.responses.events import Completed, Created, Event, Failed, Incomplete, InProgress
from server.responses.item_events import ItemEvents
from server.responses.items import close_item, is_output, opened_item
from server.responses.schemas import NamedToolChoice, ResponsesRequest
from server.serving import Serving
from server.translate.job import ChatJob
from server.translate.named_events import told
from server.translate.parts import Closed, steps

Keep = Callable[[Response], None]
"""Called with the response as it ends well, before the client hears of the end."""


def begun(body: ResponsesRequest, job: ChatJob) -> Response:
    """The response before anything is generated."""
    params = job.adds[0].params
    choice = body.tool_choice or "auto"
    style = {} if body.text is None else body.text.model_dump(exclude_none=True)
    return Response(
        id=job.id,
        created_at=job.created,
        model=job.model,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        prompt_cache_key=body.prompt_cache_key,
        reasoning={"effort": body.reasoning and body.reasoning.effort, "summary": None},
        safety_identifier=body.safety_identifier,
        store=body.store is not False,
        temperature=params.temperature,
        text={"format": {"type": "text"}} | style,
        tool_choice=choice.model_dump() if isinstance(choice, NamedToolChoice) else choice,
        tools=[tool.model_dump() for tool in body.tools or []],
        top_logprobs=body.top_logprobs or 0,
        top_p=params.top_p,
        user=body.user,
    )


async def whole_response(serving: Serving, job: ChatJob, response: Response, keep: Keep) -> Response:
    async with aclosing(steps(job, serving)) as parts:
        async for step in parts:
            if isinstance(step, Closed):
                item = opened_item(step.part)
                close_item(item, step.part)
                response.output += [item] if is_output(item) else []
    _end(response, job)
    keep(response)
    return response


async def response_events(
    serving: Serving, job: ChatJob, response: Response, keep: Keep
) -> AsyncGenerator[Event, None]:
    """The first event comes with the first token: until then an error is raised, later it is an event."""
    number = 0
    async with aclosing(_events(serving, job, response, keep)) as events:
        async for event in events:
            event.sequence_number = number
            number += 1
            yield event


async def _events(serving: Serving, job: ChatJob, response: Response, keep: Keep) -> AsyncGenerator[Event, None]:
    items = ItemEvents()
    started = False
    try:
        async with aclosing(steps(job, serving)) as parts:
            async for step in parts:
                if not started:
                    yield Created(response)
                    yield InProgress(response)
                    started = True
                for event in items.of(step):
                    yield event
        response.output = [item for item in items.done if is_output(item)]
        _end(response, job)
        keep(response)
        yield Incomplete(response) if response.status == "incomplete" else Completed(response)
    except Exception as error:
        if not started:
            raise
        failure = told(error)
        code = "server_error" if failure.status >= 500 else "invalid_prompt"
        response.status, response.error = "failed", ResponseError(code, failure.body.message)
        yield Failed(response)


def _end(response: Response, job: ChatJob) -> None:
    response.usage = Usage.of_chat(job.usage())
    if job.outputs[0].finish_reason == "length":
        response.status = "incomplete"
        response.incomplete_details = IncompleteDetails("max_output_tokens")
    else:
        response.status, response.completed_at = "completed", int(time.time())
