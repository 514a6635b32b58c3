"""The dialects of servers, one file each, behind `base.Dialect`."""
