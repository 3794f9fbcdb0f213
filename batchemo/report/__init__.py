"""The page of results, `report/index.html`: built from the tables alone, with neither torch nor a decoder."""
