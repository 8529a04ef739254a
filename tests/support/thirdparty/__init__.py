"""The example driver of docs/examples as its author would have it: installed beside the product."""
