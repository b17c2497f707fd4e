import type { IDataObject, INodeProperties } from 'n8n-workflow';

import { asUpload } from './upload';

// A retried execution sends the same key and gets the turn it already had; another run, item or text is another turn.
const idempotencyKey =
	'={{ [$executionId, $nodeId, $runIndex, $itemIndex, $parameter.message.hash()].join(":") }}';

const ask = {
	input: '={{ $parameter.message }}',
	thread_id: '={{ $parameter.threadId || undefined }}',
	webhook: '={{ $parameter.webhook || undefined }}',
};

// The door takes a list of memories, or one thread.
const forgotten =
	'={{ $parameter.forgetWhat === "ids" ? { ids: [Number($parameter.forgetId)] } : { thread_id: $parameter.forgetId } }}' as unknown as IDataObject;

export const operation: INodeProperties = {
	displayName: 'Operation',
	name: 'operation',
	type: 'options',
	noDataExpression: true,
	default: 'ask',
	options: [
		{
			name: 'Add Document',
			value: 'addDocument',
			action: 'Add a document to memory',
			description: 'Keep a text in memory, in pieces that can be recalled and cited',
			routing: {
				request: { method: 'POST', url: '/memory/documents' },
				send: { preSend: [asUpload] },
			},
		},
		{
			name: 'Ask',
			value: 'ask',
			action: 'Ask and let the message find its role',
			description: 'One turn: the role is chosen by what the message means',
			routing: {
				request: {
					method: 'POST',
					url: '/invoke',
					headers: { 'Idempotency-Key': idempotencyKey },
					body: ask,
				},
			},
		},
		{
			name: 'Ask with Role',
			value: 'askRole',
			action: 'Ask a role',
			description: 'One turn with the role you name',
			routing: {
				request: {
					method: 'POST',
					url: '/invoke',
					headers: { 'Idempotency-Key': idempotencyKey },
					body: { ...ask, role: '={{ $parameter.role }}' },
				},
			},
		},
		{
			name: 'Forget',
			value: 'forget',
			action: 'Forget a memory or a thread',
			description: 'Delete a memory, or all of a thread, for good; the answer is the receipt',
			routing: {
				request: {
					method: 'POST',
					url: '/memory/forget',
					body: forgotten,
				},
			},
		},
		{
			name: 'Get Turn',
			value: 'getTurn',
			action: 'Get a turn',
			description: 'Status and answer of an earlier turn',
			routing: {
				request: { method: 'GET', url: '=/turns/{{ encodeURIComponent($parameter.runId) }}' },
			},
		},
		{
			name: 'Search Memory',
			value: 'searchMemory',
			action: 'Search memory',
			description: 'What memory holds about a text, with the reasons',
			routing: {
				request: {
					method: 'GET',
					url: '/memory/search',
					qs: {
						q: '={{ $parameter.query }}',
						k: '={{ $parameter.limit }}',
						collection: '={{ $parameter.collection || undefined }}',
					},
				},
				output: { postReceive: [{ type: 'rootProperty', properties: { property: 'memories' } }] },
			},
		},
		{
			name: 'Warm Role',
			value: 'warmRole',
			action: 'Warm a role',
			description: "Bring a role's adapter into the engine ahead of a batch",
			routing: {
				request: {
					method: 'POST',
					url: '=/residency/{{ encodeURIComponent($parameter.role) }}/warm',
				},
			},
		},
	],
};
