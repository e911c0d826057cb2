-- Does what time brings, in a bounded portion.
SELECT expired, abandoned, purged_rows, purged, partitions FROM sweep(:row_limit);
