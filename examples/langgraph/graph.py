"""Counts to ten, a second each. Restart the relay meanwhile, or stop this and start it again: it goes on."""

import sys
import time
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from tidemill_checkpoint import TidemillSaver


class State(TypedDict):
    count: int


def count(state: State) -> State:
    time.sleep(1)
    print(state["count"] + 1, flush=True)
    return {"count": state["count"] + 1}


builder = StateGraph(State)
builder.add_node(count)
builder.add_edge(START, "count")
builder.add_conditional_edges("count", lambda state: "count" if state["count"] < 10 else END)
with TidemillSaver(sys.argv[1], forks="refuse") as saver:
    graph = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": sys.argv[2]}}
    # No input goes on with what the thread has; each step is kept before the next one begins.
    graph.invoke(None if saver.head(sys.argv[2]) else {"count": 0}, config, durability="sync")
