"""Say who may write to a store at the same time: `RUN_LOCK`, the lock that a run holds.

* Any number of threads and processes may change single files, each atomically, and read at any time; that needs no lock.
* A command that changes a store in many steps is a *run* and holds `RUN_LOCK`: `ingest`, `update`, `import`, `remove`, `actions`,
  `audit`, `index`, `snapshot create` and `verify --repair`. There is one run at a time; the next one waits, or ends with exit
  code 7.
* On a disk the lock is the kernel's and ends with its process. In a bucket it is a lease that is renewed (`store.s3.lease`), and
  where the service ignores conditional requests, one process at a time may write at all.
"""

from __future__ import annotations

RUN_LOCK = "run"
"""The name of the lock, for `FileStore.lock`."""
