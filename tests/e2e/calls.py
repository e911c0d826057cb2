"""Ways to call that many tests share."""

import concurrent.futures
import time

import grpc


def pages(method, request, **fields):
    """Every page of a List, from the first to the last, with these fields set in each request."""
    token = ""
    while True:
        answer = method(type(request).FromString(request.SerializeToString() + _with(request, token, fields)))
        yield answer
        token = answer.next_page_token
        if not token:
            return


def _with(request, token, fields):
    return type(request)(page_token=token, **fields).SerializeToString()


def everything(method, request, **fields):
    """Every element of a List: its response's one repeated field, over all pages."""
    fields.setdefault("page_size", 1000)
    return [element for page in pages(method, request, **fields) for element in _elements(page)]


def _elements(page):
    return getattr(page, page.DESCRIPTOR.fields[0].name)


def until(condition, seconds=20):
    """Asks again until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.02)
    return answer


def code_of(call):
    """The name of the code that a call ends with; call is a function without arguments."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def at_once(*calls):
    """Makes all calls at the same time; what each returned, or the RpcError that it raised."""

    def outcome(call):
        try:
            return call()
        except grpc.RpcError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))
