from flows.pull import pull_archive
import time

def test_one(prefect_server, pull_settings, register, sandbox, rows):
    register(range(20))
    t=time.time()
    state = pull_archive("icecube", return_state=True)
    print(state, time.time()-t)
    print(sandbox.requests)
    print(rows("FROM coverage"))
    t=time.time()
    state = pull_archive("icecube", return_state=True)
    print(state, time.time()-t)
