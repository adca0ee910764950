/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the drop-in needs of the shm_lock.h that Podman has since 4.6: Debian 12's is older, and
 * lacks the last two.  Podman's own layout of the structure is nobody's business here.
 */
#ifndef PODMAN_NEWER_H
#define PODMAN_NEWER_H

#include <stdint.h>

#define MAGIC 0x87D1
#define BITMAP_SIZE 32

#define shm_struct_t struct shm_struct	/* a typedef there */

shm_struct_t {
	uint16_t magic;
	uint32_t num_bitmaps;
	uint32_t num_locks;
};

shm_struct_t *setup_lock_shm(char *path, uint32_t num_locks, int *error_code);
shm_struct_t *open_lock_shm(char *path, uint32_t num_locks, int *error_code);
int32_t close_lock_shm(shm_struct_t *shm);
int64_t allocate_semaphore(shm_struct_t *shm);
int32_t allocate_given_semaphore(shm_struct_t *shm, uint32_t sem_index);
int32_t deallocate_semaphore(shm_struct_t *shm, uint32_t sem_index);
int32_t deallocate_all_semaphores(shm_struct_t *shm);
int32_t lock_semaphore(shm_struct_t *shm, uint32_t sem_index);
int32_t unlock_semaphore(shm_struct_t *shm, uint32_t sem_index);
int64_t available_locks(shm_struct_t *shm);
int32_t try_lock(shm_struct_t *shm, uint32_t sem_index);

#endif
