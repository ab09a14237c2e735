"""Read a HATS collection with lsdb, in an environment that has it: python lsdb_reader.py COLLECTION < questions.json.

This file imports nothing of Lightlake or its tests: lsdb wants pandas 3.
"""

import json
import logging
import sys
import warnings

import lsdb
import pyarrow as pa
from hats.io.validation import is_valid_collection

warnings.simplefilter("ignore")


def ids(frame):
    return sorted(frame["target_id"].to_list())


def main():
    folder, questions = sys.argv[1], json.load(sys.stdin)
    logged = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    answers = {"valid": bool(is_valid_collection(folder, strict=True)), "warnings": logged}
    found = lsdb.open_catalog(folder)
    whole = found.compute()
    answers["ids"] = ids(whole)
    flat = whole.set_index("target_id")["lc"].nest.to_flat()
    answers["rows"] = pa.Table.from_pandas(flat.reset_index()).to_pylist()
    answers["one_list"] = lsdb.open_catalog(folder, columns=["target_id", "lc.flux"]).compute()["lc.flux"].size
    answers["cones"] = [ids(found.cone_search(*cone).compute()) for cone in questions["cones"]]
    for column in ("target_id", "name"):
        answers[column] = [ids(found.id_search(values={column: one}).compute()) for one in questions[column]]
    pairs = found.crossmatch(
        found, radius_arcsec=questions["radius"], n_neighbors=100, suffixes=("_a", "_b"), suffix_method="all_columns"
    ).compute()
    answers["pairs"] = sorted(zip(pairs["target_id_a"].to_list(), pairs["target_id_b"].to_list(), strict=True))
    print("\n" + json.dumps(answers))


if __name__ == "__main__":
    main()
