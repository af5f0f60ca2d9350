/* Handlers of a sandbox's files. */
#pragma once

struct exchange;

/* api_files.c: content */
void api_file_put(struct exchange *x);
void api_file_get(struct exchange *x);

/* api_file_query.c */
void api_file_stat(struct exchange *x);
void api_file_list(struct exchange *x);
void api_file_search(struct exchange *x);

/* api_file_watch.c */
void api_file_watch(struct exchange *x);

/* api_file_change.c */
void api_file_delete(struct exchange *x);
void api_file_mkdir(struct exchange *x);
void api_file_rename(struct exchange *x);
void api_file_chmod(struct exchange *x);
void api_file_symlink(struct exchange *x);

/* api_trees.c */
void api_tree_put(struct exchange *x);
void api_tree_get(struct exchange *x);
