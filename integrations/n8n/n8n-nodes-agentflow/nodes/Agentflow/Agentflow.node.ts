import { NodeConnectionTypes, type INodeType, type INodeTypeDescription } from 'n8n-workflow';

import { operation } from './operations';
import { parameters } from './parameters';

export class Agentflow implements INodeType {
	description: INodeTypeDescription = {
		displayName: 'Agentflow',
		name: 'agentflow',
		icon: { light: 'file:agentflow.svg', dark: 'file:agentflow.dark.svg' },
		group: ['transform'],
		version: 1,
		subtitle: '={{$parameter["operation"]}}',
		description: 'Ask the right mind: one base model, a LoRA adapter per role, a memory of its own',
		defaults: { name: 'Agentflow' },
		usableAsTool: true,
		inputs: [NodeConnectionTypes.Main],
		outputs: [NodeConnectionTypes.Main],
		credentials: [{ name: 'agentflowApi', required: true }],
		requestDefaults: {
			baseURL: '={{$credentials.baseUrl}}',
			headers: { Accept: 'application/json' },
		},
		properties: [operation, ...parameters],
	};
}
